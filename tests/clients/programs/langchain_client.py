"""langchain-openai: an agent with a tool, a stream, structured output, a chain by id."""

from __future__ import annotations

import os
from typing import Any

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from report import show


class Weather(BaseModel):
    city: str
    is_wet: bool


@tool
def sky(city: str) -> str:
    """The weather of a city."""
    return f"{city} is wet."


def model(**more: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model="m-1",
        base_url=os.environ["BASE_URL"],
        api_key="k-1",
        use_responses_api=True,
        max_retries=0,
        **more,
    )


def tools(**more: Any) -> str:
    agent = create_agent(model(**more), [sky])
    result = agent.invoke({"messages": [{"role": "user", "content": "weather in both?"}]})
    return result["messages"][-1].text


def two_turns(**more: Any) -> str:
    agent = create_agent(model(**more), [sky])
    first = agent.invoke({"messages": [{"role": "user", "content": "my name is Ada; weather in Oslo?"}]})
    messages = [*first["messages"], {"role": "user", "content": "what is my name?"}]
    return agent.invoke({"messages": messages})["messages"][-1].text


def streamed() -> str:
    return "".join(chunk.text for chunk in model().stream("my name is Ada"))


def structured() -> str:
    return repr(model().with_structured_output(Weather, method="json_schema").invoke("now"))


ASKING: dict[str, Any] = {"include": ["reasoning.encrypted_content"], "truncation": "auto"}

show("tools", tools)
show("all that advises", lambda: tools(**ASKING))
show("two turns", two_turns)
show("stream", streamed)
show("structured output", structured)
show("chained", lambda: two_turns(use_previous_response_id=True))
