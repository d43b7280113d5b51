"""The official client at a LiteLLM proxy that stands in front of the gateway."""

from __future__ import annotations

import os
import time
from typing import Any

from openai import OpenAI
from report import SKY, show, sky

client = OpenAI(base_url=os.environ["BASE_URL"], api_key=os.environ["API_KEY"], max_retries=0)
TOOLS: Any = [SKY]


def ended(response: Any) -> Any:
    while response.status in ("queued", "in_progress"):
        time.sleep(0.05)
        response = client.responses.retrieve(response.id)
    return response


def tool_loop(**more: Any) -> str:
    response = ended(client.responses.create(model="m-1", input="weather in both?", tools=TOOLS, **more))
    outputs: Any = [
        {"type": "function_call_output", "call_id": item.call_id, "output": sky(item.arguments)}
        for item in response.output
        if item.type == "function_call"
    ]
    previous_id = response.id
    last = client.responses.create(
        model="m-1", input=outputs, tools=TOOLS, previous_response_id=previous_id, **more
    )
    return ended(last).output_text


def streamed() -> str:
    text = ""
    for event in client.responses.create(model="m-1", input="my name is Ada", stream=True):
        if event.type == "response.output_text.delta":
            text += event.delta
    return text


def chat() -> str:
    done = client.chat.completions.create(
        model="m-1", messages=[{"role": "user", "content": "my name is Ada"}]
    )
    return str(done.choices[0].message.content)


show("stream", streamed)
show("tool loop, background", lambda: tool_loop(background=True))
show("tool loop", tool_loop)
if os.environ["SPEAKS_CHAT"] == "yes":
    show("chat", chat)
