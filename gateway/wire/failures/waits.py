"""Waits that a backend asks for in the body of an error instead of a header."""

from __future__ import annotations

import re
from typing import Any

_UNITS = {
    **dict.fromkeys(("ms", "msec", "millisecond"), 0.001),
    **dict.fromkeys(("s", "sec", "second"), 1.0),
    **dict.fromkeys(("m", "min", "minute"), 60.0),
    **dict.fromkeys(("h", "hr", "hour"), 3600.0),
    **dict.fromkeys(("d", "day"), 86_400.0),
}
_LENGTH = re.compile(r"(\d+(?:\.\d+)?) ?([a-z]+)", re.IGNORECASE)
_WORDED_WAIT = re.compile(
    r"(?:try again|retry|wait|come back)\b[^\d\n]{0,40}?((?:\d+(?:\.\d+)? ?[a-z]+,? ?(?:and )?){1,4})",
    re.IGNORECASE,
)
_FIELDS = {
    "retryafter": 1.0,  # SGLang's and many gateways'
    "retryafters": 1.0,
    "retryafterseconds": 1.0,
    "retryafterms": 0.001,
    "retrydelay": 1.0,  # Gemini: "20s"
}


def in_fields(error: dict[str, Any]) -> float | None:
    """Seconds that an object names as a field of its own, or among the headers that it quotes
    (OpenRouter)."""
    for fields in (error, error.get("headers")):
        if isinstance(fields, dict):
            for name, value in fields.items():
                per_unit = _FIELDS.get(re.sub(r"[^a-z]", "", name.lower()))
                if per_unit is not None and (seconds := _seconds(value, per_unit)) is not None:
                    return seconds
    return None


def in_words(message: str) -> float | None:
    """Seconds that a message names: "Please try again in 1m30.5s" (OpenAI), "Please retry after 10 seconds"
    (Azure)."""
    found = _WORDED_WAIT.search(message)
    return _length(found[1]) if found else None


def _seconds(value: Any, per_unit: float) -> float | None:
    if isinstance(value, str):
        number = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*", value)
        return float(number[1]) * per_unit if number else _length(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        return None
    return value * per_unit


def _length(text: str) -> float | None:
    seconds = None
    for number, unit in _LENGTH.findall(text):
        factor = _UNITS.get(unit.lower()) or _UNITS.get(unit.lower().removesuffix("s"))
        if factor is None:
            break
        seconds = (seconds or 0.0) + float(number) * factor
    return seconds
