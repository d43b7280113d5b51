"""agent-framework and Semantic Kernel: tools and two turns, by id as both do by default, and without."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from agent_framework import Agent, tool
from agent_framework.openai import OpenAIChatClient
from openai import AsyncOpenAI
from report import show
from semantic_kernel.agents import OpenAIResponsesAgent
from semantic_kernel.functions import kernel_function


@tool(approval_mode="never_require")
def sky(city: str) -> str:
    """The weather of a city."""
    return f"{city} is wet."


class Plugin:
    @kernel_function(name="sky", description="The weather of a city.")
    def sky(self, city: str) -> str:
        return f"{city} is wet."


def framework(**options: Any) -> str:
    async def talk() -> str:
        client = OpenAIChatClient(model="m-1", api_key="k-1", base_url=os.environ["BASE_URL"])
        agent = Agent(client, "Be brief.", tools=[sky])
        session = agent.create_session()
        first = await agent.run("my name is Ada; weather in both?", session=session, options=options)
        second = await agent.run("what is my name?", session=session, options=options)
        return f"{first.text} {second.text}"

    return asyncio.run(talk())


def kernel(**options: Any) -> str:
    async def talk() -> str:
        client = AsyncOpenAI(base_url=os.environ["BASE_URL"], api_key="k-1", max_retries=0)
        agent = OpenAIResponsesAgent(
            ai_model_id="m-1", client=client, name="weather", plugins=[Plugin()], **options
        )
        first = await agent.get_response(messages="my name is Ada; weather in both?")
        second = await agent.get_response(messages="what is my name?", thread=first.thread)
        return f"{first.message.content} {second.message.content}"

    return asyncio.run(talk())


show("agent-framework", framework)
show("agent-framework, store false", lambda: framework(store=False))
show("Semantic Kernel", kernel)
show("Semantic Kernel, store false", lambda: kernel(store_enabled=False))
