"""What the fields of a chat-completions chunk say, whatever a server put there: absent, null or of another
type is as good as nothing, and never an error.
"""

from __future__ import annotations

from typing import Any

from gateway.wire.events import is_writable

VENDOR_FIELDS = ("extra_content", "provider_specific_fields", "thought_signature", "thoughtSignature")
"""Fields of a call, or of a message, that go back as they came: Gemini's signatures, by its own API, LiteLLM,
Databricks and other gateways. The item has each under its own name."""

THOUGHT_FIELDS = ("reasoning_details", "thinking_blocks")
"""Fields of thoughts that go back as they came, with their signatures: OpenRouter and MiniMax, LiteLLM."""


def object_of(value: Any) -> dict[str, Any]:
    """The value, if it is an object; else an empty one."""
    return value if isinstance(value, dict) else {}


def objects_of(value: Any) -> list[dict[str, Any]]:
    """The objects in an array; an object that stands where an array is due is one of them."""
    if isinstance(value, dict):
        return [value]
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text_of(holder: dict[str, Any], name: str) -> str:
    """A text; empty if it is none."""
    value = holder.get(name)
    return value if isinstance(value, str) else ""


def index_of(value: Any) -> int | None:
    """An index, which some send as a float or a string."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def kept(given: dict[str, Any]) -> dict[str, Any]:
    """The part of a vendor's data that can be kept: not null, and not too deep to be serialised."""
    return {name: value for name, value in given.items() if value is not None and is_writable(value)}


def logprobs_of(choice: dict[str, Any]) -> list[dict[str, Any]]:
    """The logprobs of a choice's text, with every key that the SDKs' types require."""
    if not choice.get("logprobs"):
        return []
    entries = objects_of(object_of(choice.get("logprobs")).get("content"))
    return [
        {**_logprob(entry), "top_logprobs": [_logprob(top) for top in objects_of(entry.get("top_logprobs"))]}
        for entry in entries
    ]


def _logprob(entry: dict[str, Any]) -> dict[str, Any]:
    token, codes, logprob = (entry.get(name) for name in ("token", "bytes", "logprob"))
    return {
        "token": token if isinstance(token, str) else "",
        "bytes": [code for code in codes if isinstance(code, int)] if isinstance(codes, list) else [],
        "logprob": logprob if isinstance(logprob, int | float) else 0.0,
    }
