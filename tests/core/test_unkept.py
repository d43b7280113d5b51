"""A plain response that could not be kept says so, in its Response and in its last event."""

from __future__ import annotations

import orjson

from gateway.core.job import Outcome, Status
from gateway.core.reason import Reason
from gateway.core.unkept import unkept
from gateway.wire import events
from gateway.wire.sse import data_of, split_frames


def test_only_store_changes_and_only_in_the_final_object_and_the_last_event() -> None:
    final = {"id": "resp_1", "status": "completed", "store": True, "output": []}
    delta = events.frame({"type": "response.output_text.delta", "delta": "one"}, 7)
    ended = events.frame({"type": "response.completed", "response": final}, 8)
    outcome = Outcome(Status.COMPLETED, orjson.dumps(final), 7, delta + ended, 2, None, Reason.ENDED)
    found = unkept(outcome)
    assert orjson.loads(found.final) == {**final, "store": False}
    first, last = split_frames(found.events)
    assert first == delta
    told = orjson.loads(data_of(last))
    assert told == {"type": "response.completed", "sequence_number": 8, "response": {**final, "store": False}}
