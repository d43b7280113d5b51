"""pydantic-ai: tool loops, structured output, streams, background; also a name for which it asks for more."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIResponsesModel, OpenAIResponsesModelSettings
from pydantic_ai.providers.openai import OpenAIProvider
from report import show


class Weather(BaseModel):
    city: str
    is_wet: bool


def agent(name: str, **settings: Any) -> Agent[None, str]:
    provider = OpenAIProvider(base_url=os.environ["BASE_URL"], api_key="k-1")
    model = OpenAIResponsesModel(name, provider=provider)
    made = Agent(model, model_settings=OpenAIResponsesModelSettings(**settings))

    @made.tool_plain
    def sky(city: str) -> str:
        """The weather of a city."""
        return f"{city} is wet."

    return made


def tools(name: str, **settings: Any) -> str:
    return asyncio.run(agent(name, **settings).run("weather in both?")).output


def two_turns(name: str, **settings: Any) -> str:
    async def talk() -> str:
        talker = agent(name, **settings)
        first = await talker.run("my name is Ada; weather in Oslo?")
        return (await talker.run("what is my name?", message_history=first.all_messages())).output

    return asyncio.run(talk())


def streamed(name: str) -> str:
    async def talk() -> str:
        async with agent(name).run_stream("weather in both?") as result:
            return await result.get_output()

    return asyncio.run(talk())


def structured() -> str:
    from pydantic_ai import NativeOutput

    provider = OpenAIProvider(base_url=os.environ["BASE_URL"], api_key="k-1")
    made = Agent(OpenAIResponsesModel("m-1", provider=provider), output_type=NativeOutput(Weather))
    return repr(asyncio.run(made.run("now")).output)


for name in ("m-1", "gpt-5"):
    show(f"tools, {name}", lambda name=name: tools(name))
    show(f"two turns, {name}", lambda name=name: two_turns(name))
    show(f"stream, {name}", lambda name=name: streamed(name))
show("truncation", lambda: tools("m-1", openai_truncation="auto"))
show("structured output", structured)
show("background", lambda: tools("m-1", openai_background=True))
