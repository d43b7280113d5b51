"""What stands in an error of a backend: its words, its names for itself, numbers and waits, however deep.

Servers put errors into one another: a list around the object (Gemini), `detail` (FastAPI), an error in an
error (LiteLLM), JSON in a string (OpenRouter's `metadata.raw`, new-api), a page of HTML (Cloudflare,
nginx).
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.wire.failures import waits

_DEPTH_MAX = 8
_PLAIN_CHARS_MAX = 300

_TEXTS = (
    *("message", "msg", "error_msg", "error_message", "errorMessage", "Message"),  # Bedrock's is capital
    *("status_msg", "error_description", "detail", "errors", "error", "description"),  # MiniMax; FastAPI
    *("innererror", "metadata", "raw", "base_resp", "details", "cause", "body"),  # Azure; OpenRouter; Gemini
    "title",  # RFC 9457
)
"""Where words may stand, or an error in the error; what says it better comes first."""
_NAMES = (
    "code",
    "type",
    "status",
    "error_type",
    "error_code",
    "errorCode",
    "__type",
    "reason",
    "Code",
    "name",
)
_NUMBERS = ("code", "status", "status_code", "statusCode", "http_code", "error_code")
_WRAPPER = re.compile(
    r"(provider returned error|upstream error|error|bad request|internal server error)\.?", re.IGNORECASE
)
"""Words of a gateway about an error of the server behind it."""

_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_XML_MESSAGE = re.compile(r"<message>(.*?)</message>", re.IGNORECASE | re.DOTALL)
_HOST = re.compile(r"^\S+\.\S+ \| ")
"""How the titles of Cloudflare's error pages begin."""


@dataclass(slots=True)
class ErrorFacts:
    """What is found.

    Attributes:
        messages: The best one first.
        names: Codes and types in words.
        numbers: HTTP statuses.
        asked_s: How long it asks to be left alone.
    """

    messages: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    asked_s: float | None = None

    @property
    def words(self) -> str | None:
        """The message, and behind one that says nothing of its own what it wraps."""
        if not self.messages:
            return None
        first = self.messages[0]
        wrapped = next((other for other in self.messages if other not in first), None)
        return f"{first.rstrip('.')}: {wrapped}" if wrapped and _WRAPPER.fullmatch(first) else first


def said_in(value: Any) -> ErrorFacts:
    """The facts of a parsed error."""
    said = ErrorFacts()
    _look(value, said, _DEPTH_MAX)
    return said


def said_in_bytes(body: bytes) -> ErrorFacts:
    """The facts of an error body; none if its form is unknown."""
    try:
        return said_in(orjson.loads(body))
    except orjson.JSONDecodeError:
        return ErrorFacts()


def readable_words(body: bytes) -> str | None:
    """What a body says that is a page, or text, or JSON of an unknown form; None if nothing that can be
    shown."""
    text = body.decode("utf-8", "replace").strip()
    if text.startswith("<"):
        found = _TITLE.search(text) or _XML_MESSAGE.search(text)
        text = _HOST.sub("", html.unescape(found[1]).strip()) if found else ""
    text = " ".join(text[:_PLAIN_CHARS_MAX].split())
    return text if text and text.isprintable() else None


def _look(value: Any, said: ErrorFacts, depth: int) -> None:
    if depth == 0 or not value:
        return
    match value:
        case str():
            _look_at_text(value.strip(), said, depth)
        case dict():
            _look_into(value, said, depth)
        case list():
            if problems := _problems(value):
                said.messages.append("; ".join(problems))
            else:
                for one in value:
                    _look(one, said, depth - 1)


def _look_at_text(text: str, said: ErrorFacts, depth: int) -> None:
    if text.startswith(("{", "[")):
        try:
            _look(orjson.loads(text), said, depth - 1)
        except orjson.JSONDecodeError:
            said.messages.append(text)
    elif text:
        said.messages.append(text)


def _look_into(error: dict[str, Any], said: ErrorFacts, depth: int) -> None:
    said.names += [name for key in _NAMES if isinstance(name := error.get(key), str)]
    said.numbers += filter(None, (_status(error.get(key)) for key in _NUMBERS))
    if said.asked_s is None:
        said.asked_s = waits.in_fields(error)
    inner = error.get("error")
    if isinstance(inner, dict | list):  # says it better than what stands beside it
        _look(inner, said, depth - 1)
    for key in _TEXTS:
        if key != "error" or not isinstance(inner, dict | list):
            _look(error.get(key), said, depth - 1)


def _status(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch("[45][0-9][0-9]", value):
        return int(value)
    return value if isinstance(value, int) and 400 <= value < 600 else None


def _problems(value: Iterable[Any]) -> list[str]:
    """What is wrong with which field, as FastAPI lists it; or several texts. Empty if it is another kind of
    list."""
    problems = []
    for one in value:
        if isinstance(one, dict) and isinstance(one.get("msg"), str):
            place = one.get("loc")
            where = ".".join(map(str, place)) if isinstance(place, list) else ""
            problems.append(f"{where}: {one['msg']}" if where else one["msg"])
        elif isinstance(one, str) and one and not one.startswith(("{", "[")):
            problems.append(one)
        else:
            return []
    return problems
