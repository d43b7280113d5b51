"""What the fields of a chat-completions chunk say, whatever a server put there: absent, null or of another
type is as good as nothing, and never an error.
"""

from __future__ import annotations

from typing import Any


def object_of(value: Any) -> dict[str, Any]:
    """The value, if it is an object; else an empty one."""
    return value if isinstance(value, dict) else {}


def objects_of(value: Any) -> list[dict[str, Any]]:
    """The objects in an array."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text_of(holder: dict[str, Any], name: str) -> str:
    """A text, or what an array of text parts says in place of it."""
    value = holder.get(name)
    if isinstance(value, list):
        return "".join(text_of(part, "text") for part in objects_of(value))
    return value if isinstance(value, str) else ""


def logprobs_of(choice: dict[str, Any]) -> list[dict[str, Any]]:
    """The logprobs of a choice's text, with every key that the SDKs' types require."""
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


def usage_of(usage: Any) -> dict[str, Any] | None:
    """A usage under the names of the Responses API; None if there is none."""
    if not isinstance(usage, dict):
        return None
    prompt = object_of(usage.get("prompt_tokens_details"))
    completion = object_of(usage.get("completion_tokens_details"))
    counts = {
        "input_tokens": _count(usage, "prompt_tokens"),
        "output_tokens": _count(usage, "completion_tokens"),
    }
    return {
        **counts,
        "total_tokens": _count(usage, "total_tokens") or sum(counts.values()),
        "input_tokens_details": {"cached_tokens": _count(prompt, "cached_tokens")},
        "output_tokens_details": {"reasoning_tokens": _count(completion, "reasoning_tokens")},
    }


def _count(holder: dict[str, Any], name: str) -> int:
    value = holder.get(name)
    return int(value) if isinstance(value, int) else 0
