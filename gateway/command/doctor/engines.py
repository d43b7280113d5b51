"""What engines say in their metrics: which they are, and how many requests they work on. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.outbound.backfill import queue_length

_NUMBER = rb"(?:\{.*\})? +([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)(?: [0-9]+)?\r?$"


@dataclass(frozen=True, slots=True)
class _Names:
    """Metrics of an engine.

    Attributes:
        generated: Tokens so far, counted while they are made; None: only when a request is over.
    """

    running: re.Pattern[bytes]
    generated: re.Pattern[bytes] | None = None


def _pattern(name: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"^" + name + _NUMBER, re.MULTILINE)


_ENGINES = {
    # vLLM brings its gauge up to date with each step: after the last request was aborted, the counter tells
    "vllm": _Names(_pattern(rb"vllm:num_requests_running"), _pattern(rb"vllm:generation_tokens_total")),
    "sglang": _Names(_pattern(rb"sglang:num_running_reqs")),
    "llamacpp": _Names(_pattern(rb"llamacpp:requests_processing")),
}


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How much an engine does."""

    engine: str
    running: float
    generated: float | None


def load_in(page: bytes) -> EngineLoad | None:
    """What a page of metrics says; None if it is of no engine that is known."""
    for engine, names in _ENGINES.items():
        found = names.running.findall(page)
        if found and queue_length(page, engine) is not None:
            made = names.generated.findall(page) if names.generated is not None else []
            return EngineLoad(engine, sum(map(float, found)), sum(map(float, made)) if made else None)
    return None
