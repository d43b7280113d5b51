"""A machine made from stored events goes on as the one that wrote them would have."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from gateway.core.job import Status
from gateway.core.machine import Input, Started
from gateway.core.reason import Reason
from gateway.core.transcript import Abandoned, CancelRequested, DeadlinePassed, Transcript
from gateway.core.upstream import UpstreamFrames
from gateway.wire.sse import split_frames

LIMIT = 2**24
STOPS = [CancelRequested(), DeadlinePassed(), Abandoned("x", Reason.RESTART)]


def restored(played: Any, stored: bytes) -> Any:
    """As after a crash: from the row and the stored events, and nothing else."""
    job = dataclasses.replace(
        played.job, status=Status.IN_PROGRESS, next_seq=len(split_frames(stored)), epoch=2
    )
    machine = Transcript.restored(job, stored, events_bytes_max=LIMIT)
    return dataclasses.replace(played, machine=machine, job=job, stored=stored, outcomes=[])


def singly(inputs: list[Input]) -> list[Input]:
    """Each frame as its own input, without the end of the stream."""
    frames = [frame for item in inputs if isinstance(item, UpstreamFrames) for frame in item.frames]
    return [UpstreamFrames([frame]) for frame in frames]


def test_cancel_after_any_frame_shows_the_same_output_as_the_live_machine(
    recorded: bytes, begin: Callable[..., Any], heard: Callable[..., Any], check: Callable[..., None]
) -> None:
    inputs = singly(heard(recorded))[:-1]
    for count in [*range(0, len(inputs), max(1, len(inputs) // 12)), len(inputs)]:
        live = begin()
        live.receive(Started(), *inputs[:count])
        again = restored(live, live.stored)
        assert again.machine.output() == live.machine.output()
        live.receive(CancelRequested())
        again.receive(CancelRequested())
        assert again.final["output"] == live.final["output"]
        assert [event["sequence_number"] for event in again.events] == list(range(len(again.events)))
        assert len(again.events) == len(live.events)
        check(again.events)


def test_any_prefix_of_the_stored_events_can_be_ended(
    recorded: bytes, ran: Callable[..., Any], check: Callable[..., None]
) -> None:
    """A crash keeps what was committed, which may end between any two events."""
    played = ran(recorded)
    frames = split_frames(played.stored)
    for count in [*range(3, len(frames), max(1, len(frames) // 12)), len(frames) - 1]:
        again = restored(played, b"".join(frames[:count]))
        assert all(item.get("status") in ("in_progress", "completed") for item in again.machine.output())
        again.receive(Abandoned("The gateway was restarted.", Reason.RESTART))
        check(again.events)
        assert again.outcomes[0].first_seq == count
        assert all(item["status"] in ("incomplete", "completed") for item in again.final["output"])


@pytest.mark.parametrize(
    "item", [CancelRequested(), DeadlinePassed(), Abandoned("x", Reason.RESTART)], ids=repr
)
def test_restored_machine_ends_once(item: Input, begin: Callable[..., Any]) -> None:
    played = begin()
    played.receive(Started())
    again = restored(played, played.stored)
    again.receive(item, item, CancelRequested(), Started())
    assert [event["sequence_number"] for event in again.events] == [0, 1, 2, 3]


def test_restored_machine_can_go_on_with_the_stream(
    recorded: bytes, begin: Callable[..., Any], heard: Callable[..., Any], check: Callable[..., None]
) -> None:
    inputs = singly(heard(recorded))
    half = len(inputs) // 2
    live = begin()
    live.receive(Started(), *inputs[:half])
    again = restored(live, live.stored)
    again.receive(Started(), *inputs[half:])
    live.receive(*inputs[half:])
    check(again.events)
    assert orjson.dumps(again.final["output"]) == orjson.dumps(live.final["output"])
