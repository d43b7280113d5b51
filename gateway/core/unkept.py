"""What a plain response says of itself that was to be kept, and is not."""

from __future__ import annotations

from dataclasses import replace

import orjson

from gateway.core.job import Outcome
from gateway.wire import events, responses
from gateway.wire.sse import data_of, split_frames


def unkept(outcome: Outcome) -> Outcome:
    """The ending with `store: false`, in its Response and in its terminal event."""
    final = responses.not_stored(orjson.loads(outcome.final))
    *before, last = split_frames(outcome.events)
    terminal = {**orjson.loads(data_of(last)), "response": final}
    shown = events.frame(terminal, terminal["sequence_number"])
    return replace(outcome, final=orjson.dumps(final), events=b"".join([*before, shown]))
