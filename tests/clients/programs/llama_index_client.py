"""LlamaIndex: tool calls, a stream, and a chain by id as its option has it."""

from __future__ import annotations

import os
from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAIResponses
from report import show


def sky(city: str) -> str:
    """The weather of a city."""
    return f"{city} is wet."


TOOL = FunctionTool.from_defaults(fn=sky)


def model(**more: Any) -> OpenAIResponses:
    return OpenAIResponses(
        model="m-1",
        api_base=os.environ["BASE_URL"],
        api_key="k-1",
        max_retries=0,
        context_window=8000,
        **more,
    )


def tools() -> str:
    llm = model()
    result = llm.predict_and_call([TOOL], user_msg="weather in Oslo?")
    return str(result)


def talk(**more: Any) -> str:
    llm = model(**more)
    first = ChatMessage(role="user", content="my name is Ada")
    answer = llm.chat([first])
    again = ChatMessage(role="user", content="what is my name?")
    history = [again] if more.get("track_previous_responses") else [first, answer.message, again]
    return str(llm.chat(history).message.content)


def streamed() -> str:
    text = ""
    for part in model().stream_chat([ChatMessage(role="user", content="my name is Ada")]):
        text += part.delta or ""
    return text


show("tools", tools)
show("two turns", talk)
show("stream", streamed)
show("chained", lambda: talk(track_previous_responses=True))
