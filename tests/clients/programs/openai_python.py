"""The official Python client: a tool loop, structured output, streams, background mode."""

from __future__ import annotations

import os
import time
from typing import Any

from openai import OpenAI
from pydantic import BaseModel
from report import SKY, show, sky

client = OpenAI(base_url=os.environ["BASE_URL"], api_key=os.environ["API_KEY"], max_retries=0)
TOOLS: Any = [SKY]


class Weather(BaseModel):
    city: str
    is_wet: bool


def tool_loop(**more: Any) -> str:
    """By items sent back, as the documentation of the API shows it."""
    items: Any = [{"role": "user", "content": "weather in both?"}]
    for _ in range(3):
        response = client.responses.create(model="m-1", input=items, tools=TOOLS, **more)
        while response.status in ("queued", "in_progress"):
            time.sleep(0.05)
            response = client.responses.retrieve(response.id)
        items += response.output
        calls = [item for item in response.output if item.type == "function_call"]
        if not calls:
            return response.output_text
        items += [
            {"type": "function_call_output", "call_id": call.call_id, "output": sky(call.arguments)}
            for call in calls
        ]
    return "no end"


def chained(**more: Any) -> str:
    """By id: the tool loop, then a turn that needs the first one."""
    response = client.responses.create(
        model="m-1", input="my name is Ada; weather in Oslo?", tools=TOOLS, **more
    )
    for _ in range(4):
        while response.status in ("queued", "in_progress"):
            time.sleep(0.05)
            response = client.responses.retrieve(response.id)
        outputs: Any = [
            {"type": "function_call_output", "call_id": item.call_id, "output": sky(item.arguments)}
            for item in response.output
            if item.type == "function_call"
        ]
        said: Any = outputs or "what is my name?"
        if not outputs and "name" in response.output_text:
            return response.output_text
        response = client.responses.create(
            model="m-1", input=said, tools=TOOLS, previous_response_id=response.id, **more
        )
    return response.output_text


def streamed() -> str:
    with client.responses.stream(model="m-1", input="weather in Oslo?", tools=TOOLS) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    return ",".join(item.type for item in final.output)


def parsed() -> str:
    response = client.responses.parse(model="m-1", input="now", text_format=Weather)
    return repr(response.output_parsed)


def resumed() -> str:
    """A background stream, left after three events and taken up again."""
    stream = client.responses.create(model="m-1", input="hello", background=True, stream=True)
    seen = []
    for event in stream:
        seen.append(event.sequence_number)
        if len(seen) == 3:
            break
    stream.close()
    response_id = event.response.id  # type: ignore[union-attr]  # the third event is in_progress
    for event in client.responses.retrieve(response_id, stream=True, starting_after=seen[-1]):
        seen.append(event.sequence_number)
    whole = client.responses.retrieve(response_id)
    return f"{seen == list(range(len(seen)))} {whole.status} {whole.output_text}"


show("tool loop", tool_loop)
show("tool loop, background", lambda: tool_loop(background=True))
show("stream helper", streamed)
show("parse", parsed)
show("resumed", resumed)
show("chained, background", lambda: chained(background=True))
show("chained", chained)
