"""openai-agents: tools, a session, a stream; in the background only a stream, since it never polls."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from agents import Agent, ModelSettings, Runner, SQLiteSession, function_tool, set_tracing_disabled
from agents.models.openai_responses import OpenAIResponsesModel
from openai import AsyncOpenAI
from report import show

set_tracing_disabled(True)


@function_tool
def sky(city: str) -> str:
    """The weather of a city."""
    return f"{city} is wet."


def agent(**settings: Any) -> Agent[Any]:
    client = AsyncOpenAI(base_url=os.environ["BASE_URL"], api_key="k-1", max_retries=0)
    model = OpenAIResponsesModel("m-1", client)
    return Agent(
        name="weather",
        instructions="Be brief.",
        model=model,
        tools=[sky],
        model_settings=ModelSettings(**settings),
    )


def run(question: str, **settings: Any) -> str:
    return asyncio.run(Runner.run(agent(**settings), question)).final_output


def session() -> str:
    async def talk() -> str:
        memory = SQLiteSession("s-1")
        await Runner.run(agent(), "my name is Ada; weather in Oslo?", session=memory)
        return (await Runner.run(agent(), "what is my name?", session=memory)).final_output

    return asyncio.run(talk())


def streamed(**settings: Any) -> str:
    async def talk() -> str:
        result = Runner.run_streamed(agent(**settings), "weather in both?")
        async for _ in result.stream_events():
            pass
        return result.final_output

    return asyncio.run(talk())


def chained() -> str:
    async def talk() -> str:
        first = await Runner.run(agent(), "my name is Ada; weather in both?", auto_previous_response_id=True)
        second = await Runner.run(agent(), "what is my name?", previous_response_id=first.last_response_id)
        return second.final_output

    return asyncio.run(talk())


ASKING: dict[str, Any] = {
    "response_include": ["reasoning.encrypted_content"],
    "truncation": "auto",
}

show("tools", lambda: run("weather in both?"))
show("all that advises", lambda: run("weather in both?", **ASKING))
show("session", session)
show("stream", streamed)
show("stream, background", lambda: streamed(extra_body={"background": True}))
show("chained", chained)
