"""What every program shares: the tool, and how a scenario's result is told to the test that started it."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from typing import Any

SKY = {
    "type": "function",
    "name": "sky",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def sky(arguments: str) -> str:
    """What the tool answers."""
    return f"{json.loads(arguments)['city']} is wet."


def show(scenario: str, play: Callable[[], Any]) -> None:
    """Play it, and print a line that the test reads."""
    try:
        result = play()
    except Exception as error:
        traceback.print_exc()
        result = f"{type(error).__name__}: {error}"[:600]
    print(json.dumps({"scenario": scenario, "result": result}), flush=True)
