"""What a backend says of tokens, whatever it calls them, in the one form that the SDKs' types require.

For both kinds of backend. A number that was sent is never shown as zero: of two names for one count, and of
several reports within one answer, the larger counts, since counts only grow.
"""

from __future__ import annotations

import re
from typing import Any

from gateway.wire.events import is_writable

Usage = dict[str, Any]

_INPUT, _OUTPUT, _TOTAL = "input_tokens", "output_tokens", "total_tokens"
_CACHED, _WRITTEN, _REASONING = "cached_tokens", "cache_write_tokens", "reasoning_tokens"
_UNCACHED = "uncached_tokens"
"""Names of prompt tokens without the cached part."""

_NAMES = {
    name: count
    for count, names in {
        _INPUT: (
            "input_tokens",  # the Responses API, Anthropic
            "prompt_tokens",  # chat completions
            "promptTokenCount",  # Gemini
            "prompt_token_count",  # Gemini, through some gateways
            "inputTokens",  # Bedrock
            "inputTokenCount",  # Bedrock's metrics
            "prompt_eval_count",  # Ollama
        ),
        _UNCACHED: ("prompt_n",),  # llama.cpp's timings
        _OUTPUT: (
            "output_tokens",
            "completion_tokens",
            "candidatesTokenCount",
            "candidates_token_count",
            "outputTokens",
            "outputTokenCount",
            "eval_count",
            "predicted_n",  # llama.cpp's timings
        ),
        _TOTAL: ("total_tokens", "totalTokenCount", "total_token_count", "totalTokens"),
        _CACHED: (
            "cached_tokens",  # OpenAI in the details, Moonshot beside the counts
            "cache_read_input_tokens",  # Anthropic, LiteLLM, Perplexity
            "prompt_cache_hit_tokens",  # DeepSeek
            "cache_read_tokens",
            "cachedContentTokenCount",
            "cached_content_token_count",
            "cacheReadInputTokens",
            "cacheReadInputTokenCount",
            "cache_n",
        ),
        _WRITTEN: (
            "cache_write_tokens",
            "cache_creation_input_tokens",
            "cache_creation_tokens",  # LiteLLM, in the details
            "cacheWriteInputTokens",
            "cacheWriteInputTokenCount",
        ),
        _REASONING: (
            "reasoning_tokens",  # OpenAI in the details, SambaNova and others beside the counts
            "thinking_tokens",
            "thoughtsTokenCount",
            "thoughts_token_count",
        ),
    }.items()
    for name in names
}
"""The count that each name in use means."""

_DETAILS = {
    "input_tokens_details": "input",
    "prompt_tokens_details": "input",
    "output_tokens_details": "output",
    "completion_tokens_details": "output",
}
_INSIDE = ("tokens",)
"""Objects that hold the counts themselves: Cohere has `billed_units` beside `tokens`."""

_PLACES = (
    ("usage",),  # most
    ("usage_metadata",),
    ("usageMetadata",),  # Gemini
    ("x_groq", "usage"),  # Groq, before it knew `stream_options`
    ("amazon-bedrock-invocationMetrics",),
)
_TIMINGS = "timings"
"""llama.cpp: beside the usage, or in place of it."""

_BARE = ("prompt_eval_count", "eval_count")
"""Ollama's own API: in the chunk itself."""

_FIRST = frozenset({_TIMINGS, *_BARE, *(place[0] for place in _PLACES)})

_DIGITS = re.compile(r"\d{1,15}(\.0*)?")
_COUNT_MAX = 2**53


def zeros() -> Usage:
    """The usage of nothing."""
    return _shown({}, {}, {}, {})


def usage_of(value: Any) -> Usage | None:
    """A backend's usage with every key that the SDKs' types require; None if it says nothing.

    What has no name here (a cost, the tokens of each modality) goes along as it came.
    """
    if not isinstance(value, dict):
        return None
    counts: dict[str, int] = {}
    of_input: Usage = {}
    of_output: Usage = {}
    others: Usage = {}
    for name, item in value.items():
        if name in _DETAILS:
            _take(item, counts, of_input if _DETAILS[name] == "input" else of_output)
        elif name in _INSIDE:
            _take(item, counts, others)
        else:
            _take({name: item}, counts, others)
    if not (counts or of_input or of_output or others):
        return None
    return _shown(counts, of_input, of_output, others)


def usage_in(*holders: dict[str, Any]) -> Usage:
    """The token counts of a chunk under the names that it uses; often none."""
    found: Usage = {}
    for holder in holders:
        if _FIRST.isdisjoint(holder):
            continue
        for first, *rest in _PLACES:
            if not (value := holder.get(first)):
                continue
            for name in rest:
                value = value.get(name) if isinstance(value, dict) else None
            if isinstance(value, dict):
                found = merged(found, value)
        if isinstance(timings := holder.get(_TIMINGS), dict):
            found = merged(found, {name: item for name, item in timings.items() if name in _NAMES})
        found = merged(found, {name: holder[name] for name in _BARE if name in holder})
    return found


def merged(earlier: Usage, later: Usage) -> Usage:
    """Two reports within one answer as one."""
    result = dict(earlier)
    for name, item in later.items():
        known = result.get(name)
        if item is None:
            continue
        if isinstance(known, dict) and isinstance(item, dict):
            result[name] = merged(known, item)
        elif name not in _NAMES or known is None or (_count(item) or 0) >= (_count(known) or 0):
            result[name] = item
    return result


def _take(given: Any, counts: dict[str, int], others: Usage) -> None:
    for name, item in given.items() if isinstance(given, dict) else ():
        count = _NAMES.get(name)
        if count is None:
            if item is not None and is_writable(item):
                others[name] = item
        elif (number := _count(item)) is not None:
            counts[count] = max(number, counts.get(count, 0))


def _shown(counts: dict[str, int], of_input: Usage, of_output: Usage, others: Usage) -> Usage:
    if _UNCACHED in counts:
        counts[_INPUT] = max(counts.get(_INPUT, 0), counts[_UNCACHED] + counts.get(_CACHED, 0))
    total = counts.get(_TOTAL, 0)
    given, taken = counts.get(_INPUT, 0), counts.get(_OUTPUT, 0)
    if _INPUT in counts and _OUTPUT not in counts:
        taken = max(0, total - given)
    if _OUTPUT in counts and _INPUT not in counts:
        given = max(0, total - taken)
    read, written = counts.get(_CACHED, 0), counts.get(_WRITTEN, 0)
    return {
        _INPUT: given,
        "input_tokens_details": {_CACHED: read, _WRITTEN: written, **of_input},
        _OUTPUT: taken,
        "output_tokens_details": {_REASONING: counts.get(_REASONING, 0), **of_output},
        _TOTAL: max(total, given + taken),
        **others,
    }


def _count(value: Any) -> int | None:
    """A number of tokens, which some send as a float, or as a string of digits."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < _COUNT_MAX else None
