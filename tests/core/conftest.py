"""What the tests of this room share: a job, a backend that says what it is told to, and a strict reader.

The strict reader refuses whatever one of the official client libraries refuses, and whatever does not add up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.core.acceptance import new_job
from gateway.core.job import Job, Outcome, Status
from gateway.core.machine import (
    Append,
    Finish,
    Input,
    JobMachine,
    Started,
    UpstreamClosed,
    UpstreamFailed,
    UpstreamFrames,
)
from gateway.wire.readers import Reader
from gateway.wire.sse import SseDecoder, data_of, split_frames

Event = dict[str, Any]

TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"
NOW_S = 1_770_000_000


def _recorded() -> dict[str, bytes]:
    """The bodies of all recorded Responses streams, by server and probe."""
    found = {}
    for path in sorted(TRANSCRIPTS.glob("*/responses-*.txt")):
        head, _, body = path.read_bytes().partition(b"\n\n< ")[2].partition(b"\n\n")
        is_stream = head.startswith(b"200") and b"text/event-stream" in head
        if is_stream and "…".encode() not in body:
            found[f"{path.parent.name}/{path.stem}"] = body
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "recorded" in metafunc.fixturenames:
        streams = _recorded()
        assert len(streams) > 20, "the transcripts are gone"
        metafunc.parametrize("recorded", list(streams.values()), ids=list(streams))


@dataclass
class Played:
    """What a job came to: every event as a client reads it, and how it ended."""

    machine: JobMachine
    job: Job
    stored: bytes
    outcomes: list[Outcome] = field(default_factory=list)
    failed: list[UpstreamFailed | None] = field(default_factory=list)

    def receive(self, *inputs: Input) -> None:
        for item in inputs:
            for command in self.machine.receive(item, now_s=NOW_S):
                match command:
                    case Append(events, count, _):
                        assert len(split_frames(events)) == count
                        self.stored += events
                    case Finish(outcome, failed):
                        assert len(split_frames(outcome.events)) == outcome.event_count
                        self.stored += outcome.events
                        self.outcomes.append(outcome)
                        self.failed.append(failed)

    @property
    def events(self) -> list[Event]:
        return [orjson.loads(data_of(frame)) for frame in split_frames(self.stored)]

    @property
    def final(self) -> dict[str, Any]:
        (outcome,) = self.outcomes
        final: dict[str, Any] = orjson.loads(outcome.final)
        return final


def accepted(
    body: dict[str, Any],
    *,
    events_bytes_max: int = 2**24,
    status: Status = Status.QUEUED,
    reader: Callable[[str, dict[str, Any]], Reader] | None = None,
) -> Played:
    """A job that was accepted for this request; `status` for one that was claimed before, too.

    Args:
        reader: Makes one of an id and the request, for a backend that does not speak Responses.
    """
    new = new_job(
        body,
        response_id="resp_" + "a1" * 24,
        tenant=bytes(32),
        previous_id=None,
        backend="default",
        idempotency=None,
        opening=("response.created", "response.queued"),
        target="/v1/responses",
        headers={},
        shows_output=True,
        now_ms=NOW_S * 1000,
        deadline_s=60,
    )
    job = Job(
        id=new.id,
        tenant=new.tenant,
        status=status,
        epoch=1,
        attempt=1,
        next_seq=new.next_seq,
        created_at_ms=new.created_at_ms,
        started_at_ms=None,
        deadline_ms=new.deadline_ms,
        is_streamed=new.is_streamed,
        is_followable=new.is_followable,
        is_rerunnable=new.is_rerunnable,
        output_shown=False,
        response=new.response,
        final=None,
    )
    known = reader(job.id, body) if reader is not None else None
    return Played(JobMachine(job, events_bytes_max=events_bytes_max, reader=known), job, new.events)


@pytest.fixture(scope="session")
def begin() -> Callable[..., Played]:
    """`accepted`, for a request with these fields."""

    def begun(*, events_bytes_max: int = 2**24, status: Status = Status.QUEUED, **request: Any) -> Played:
        body = {"model": "tiny", "input": "Hello", "background": True, "stream": True, **request}
        return accepted(body, events_bytes_max=events_bytes_max, status=status)

    return begun


@pytest.fixture(scope="session")
def heard() -> Callable[..., list[Input]]:
    """What the machine hears when a backend sends these bytes, in pieces of a size, and closes."""

    def hear(body: bytes, size: int = 2**16) -> list[Input]:
        decoder = SseDecoder(2**20)
        reads = [decoder.feed(body[at : at + size]) for at in range(0, len(body), size)]
        return [*(UpstreamFrames(frames) for frames in [*reads, decoder.close()] if frames), UpstreamClosed()]

    return hear


@pytest.fixture(scope="session")
def ran(begin: Callable[..., Played], heard: Callable[..., list[Input]]) -> Callable[..., Played]:
    """The whole run of a job whose backend sends these bytes."""

    def run(body: bytes, size: int = 2**16, **request: Any) -> Played:
        played = begin(**request)
        played.receive(Started(), *heard(body, size))
        return played

    return run


@pytest.fixture(scope="session")
def check() -> Callable[..., None]:
    """Fails for a stream that a strict client would refuse, or whose texts do not add up.

    `is_true`: the backend's deltas are what it says at the end that they were.
    """
    return lambda events, is_true=True: StrictReader(is_true).read(events)


_LIFECYCLE = ["response.created", "response.queued", "response.in_progress"]
_ENDINGS = {"response.completed", "response.failed", "response.incomplete"}
_PART_TYPES = {"message": {"output_text", "refusal"}, "reasoning": {"reasoning_text", "summary_text"}}
_HOLDERS = {"message": ("content",), "reasoning": ("content", "summary")}
_TEXT_OF = {  # event name without its verb: the type of the part, and where its text is
    "output_text": ("output_text", "text"),
    "refusal": ("refusal", "refusal"),
    "reasoning_text": ("reasoning_text", "text"),
    "reasoning_summary_text": ("summary_text", "text"),
}
_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
_CALL_EVENTS = {"function_call_arguments": "function_call", "custom_tool_call_input": "custom_tool_call"}


@dataclass
class ReadPart:
    type: str
    text: str = ""
    is_text_done: bool = False
    is_done: bool = False
    annotations: int = 0


@dataclass
class ReadItem:
    item: dict[str, Any]
    content: list[ReadPart] = field(default_factory=list)
    summary: list[ReadPart] = field(default_factory=list)
    arguments: str = ""
    is_arguments_done: bool = False
    is_done: bool = False


class StrictReader:
    """Reads a stream as the strictest client does."""

    def __init__(self, is_true: bool = True) -> None:
        self.is_true = is_true
        self.items: list[ReadItem] = []

    def read(self, events: Sequence[Event]) -> None:
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        names = [event["type"] for event in events]
        lead = next((n for n, name in enumerate(names) if name not in _LIFECYCLE), len(names))
        assert names[:lead] in (_LIFECYCLE, _LIFECYCLE[:2])
        assert names[-1] in _ENDINGS
        assert not _ENDINGS & set(names[:-1])
        for event in events:
            assert "obfuscation" not in event
        for event in events[:lead]:
            assert event["response"]["output"] == []
            assert event["response"]["id"] == events[-1]["response"]["id"]
        for event in events[lead:-1]:
            self._event(event)
        self._ending(events[-1])

    def _event(self, event: Event) -> None:
        group, _, verb = event["type"].removeprefix("response.").rpartition(".")
        if group == "output_item":
            self._added(event) if verb == "added" else self._done(event)
        elif group in ("content_part", "reasoning_summary_part"):
            self._part(event, verb, "content" if group == "content_part" else "summary")
        elif group in _TEXT_OF:
            self._text(event, verb, *_TEXT_OF[group])
        elif group in _CALL_EVENTS:
            self._arguments(event, verb, _CALL_EVENTS[group])
        elif group == "output_text.annotation":
            part = self._located(event).content[event["content_index"]]
            assert event["annotation_index"] == part.annotations
            part.annotations += 1
        elif group in ("audio", "audio.transcript"):
            assert "item_id" not in event  # it belongs to no item
        elif group == "web_search_call":
            assert self._located(event).item["type"] == group
        else:
            raise AssertionError(f"unknown type {event['type']}")

    def _located(self, event: Event) -> ReadItem:
        found = self.items[event["output_index"]]
        assert found.item["id"] == event["item_id"]
        assert not found.is_done
        return found

    def _added(self, event: Event) -> None:
        item = event["item"]
        assert event["output_index"] == len(self.items)
        assert isinstance(item["id"], str)
        assert item["id"]
        assert item["id"] not in {known.item["id"] for known in self.items}
        match item["type"]:
            case "message":
                assert (item["role"], item["content"], item["status"]) == ("assistant", [], "in_progress")
            case "reasoning":
                assert (item["summary"], item.get("content") or []) == ([], [])
            case "function_call" | "custom_tool_call":
                assert item[_CALLS[item["type"]]] == ""
                assert item["call_id"]
                assert item["call_id"] not in [known.item.get("call_id") for known in self.items]
        self.items.append(ReadItem(item))

    def _part(self, event: Event, verb: str, holder: str) -> None:
        found = self._located(event)
        parts: list[ReadPart] = getattr(found, holder)
        index, part = event[f"{holder}_index"], event["part"]
        text = part["refusal" if part["type"] == "refusal" else "text"]
        if verb == "added":
            assert index == len(parts)
            assert part["type"] in _PART_TYPES[found.item["type"]]
            assert (part["type"] == "summary_text") == (holder == "summary")
            assert text == ""
            parts.append(ReadPart(part["type"]))
            return
        known = parts[index]
        assert (known.is_text_done, known.is_done) == (True, False)
        assert (part["type"], text) == (known.type, known.text)
        known.is_done = True

    def _text(self, event: Event, verb: str, part_type: str, key: str) -> None:
        holder = "summary" if part_type == "summary_text" else "content"
        part: ReadPart = getattr(self._located(event), holder)[event[f"{holder}_index"]]
        assert (part.type, part.is_text_done) == (part_type, False)
        if verb == "delta":
            part.text += event["delta"]
            return
        assert event[key] == part.text or not self.is_true
        part.text, part.is_text_done = event[key], True

    def _arguments(self, event: Event, verb: str, item_type: str) -> None:
        found = self._located(event)
        assert (found.item["type"], found.is_arguments_done) == (item_type, False)
        if verb == "delta":
            found.arguments += event["delta"]
            return
        full = event[_CALLS[item_type]]
        assert full == found.arguments or not self.is_true
        found.arguments, found.is_arguments_done = full, True

    def _done(self, event: Event) -> None:
        item = event["item"]
        found = self._located({**event, "item_id": item["id"]})
        for name in ("id", "type", "call_id"):
            assert item.get(name) == found.item.get(name)
        assert all(part.is_done for part in (*found.content, *found.summary))
        self._adds_up(found, item)
        assert found.is_arguments_done == (item["type"] in _CALLS)
        assert item.get("status") != "in_progress"
        found.item, found.is_done = item, True

    def _adds_up(self, found: ReadItem, item: dict[str, Any]) -> None:
        for holder in _HOLDERS.get(item["type"], ()):
            parts: list[ReadPart] = getattr(found, holder)
            shown = [(part["type"], part.get("text", part.get("refusal"))) for part in item.get(holder) or []]
            assert shown == [(part.type, part.text) for part in parts]
        if item["type"] in _CALLS:
            assert item[_CALLS[item["type"]]] == found.arguments

    def _ending(self, event: Event) -> None:
        response = event["response"]
        named = event["type"].removeprefix("response.")
        assert response["status"] in ({"failed", "cancelled"} if named == "failed" else {named})
        assert (response["error"] is not None) == (response["status"] == "failed")
        assert len(response["output"]) == len(self.items)
        for item, found in zip(response["output"], self.items, strict=True):
            if found.is_done:
                assert item == found.item
                continue
            assert named == "failed", "an item was left open in a response that ended well"
            assert (item["id"], item["type"]) == (found.item["id"], found.item["type"])
            assert item.get("status", "incomplete") in ("incomplete", "failed")
            self._adds_up(found, item)
