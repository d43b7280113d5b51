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
from gateway.core.machine import ClientWaits, Input, Started
from gateway.core.retry import Now
from gateway.core.transcript import Abandoned, Append, Broken, CancelRequested, DeadlinePassed, Transcript
from gateway.core.upstream import OtherApi, UpstreamClosed, UpstreamFailed, UpstreamFrames
from gateway.wire.answers.readers import AnswerReader
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

    machine: Transcript
    job: Job
    stored: bytes
    outcomes: list[Outcome] = field(default_factory=list)
    failed: list[UpstreamFailed | None] = field(default_factory=list)

    def receive(self, *inputs: Input) -> None:
        for item in inputs:
            for step in self._steps(item):
                failed: UpstreamFailed | None = None
                if isinstance(step, Broken):
                    failed = step.failed
                    step = self.machine.fail(step, Now(NOW_S * 1000))
                if isinstance(step, Append):
                    assert len(split_frames(step.events)) == step.count
                else:
                    assert len(split_frames(step.events)) == step.event_count
                    self.outcomes.append(step)
                    self.failed.append(failed)
                self.stored += step.events

    def _steps(self, item: Input) -> Sequence[Append | Broken | Outcome]:
        match item:
            case Started():
                return self.machine.start()
            case CancelRequested() | DeadlinePassed() | Abandoned():
                return [] if self.outcomes else [self.machine.stop(item, Now(NOW_S * 1000))]
            case ClientWaits() | OtherApi():
                raise AssertionError("a transcript does not hear of these")
        return self.machine.receive(item, Now(NOW_S * 1000))

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
    reader: Callable[[str, dict[str, Any]], AnswerReader] | None = None,
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
    return Played(Transcript(job, events_bytes_max=events_bytes_max, reader=known), job, new.events)


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
_FIELD_TEXTS = {**_CALLS, "mcp_call": "arguments", "code_interpreter_call": "code"}
_FIELD_EVENTS = {
    "function_call_arguments": "function_call",
    "custom_tool_call_input": "custom_tool_call",
    "mcp_call_arguments": "mcp_call",
    "code_interpreter_call_code": "code_interpreter_call",
}
_STATES = {  # what Node's accumulator (6 and 7) knows that a tool is doing
    "web_search_call": {"in_progress", "searching", "completed"},
    "file_search_call": {"in_progress", "searching", "completed"},
    "code_interpreter_call": {"in_progress", "interpreting", "completed"},
    "image_generation_call": {"in_progress", "generating", "partial_image", "completed"},
    "mcp_call": {"in_progress", "completed", "failed"},
    "mcp_list_tools": {"in_progress", "completed", "failed"},
}
_ROUTED = {"function_call", "custom_tool_call", "shell_call", "shell_call_output"}
"""Items that Node's accumulator, from version 7, wants a `call_id` of, one for each of the type."""


@dataclass
class ReadPart:
    type: str
    text: str = ""
    is_text_done: bool = False
    is_done: bool = False
    annotations: int = 0


@dataclass
class ReadItem:
    """An item as the events so far tell it.

    Attributes:
        states: What the tool was said to be doing.
        is_told_late: Something came after it was done.
    """

    item: dict[str, Any]
    content: list[ReadPart] = field(default_factory=list)
    summary: list[ReadPart] = field(default_factory=list)
    text: str = ""
    is_text_done: bool = False
    is_done: bool = False
    is_told_late: bool = False
    states: set[str] = field(default_factory=set)


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
            assert not {"obfuscation", "response_id"} & set(event)
            assert None not in event.values()
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
        elif group in _FIELD_EVENTS:
            self._field_text(event, verb, _FIELD_EVENTS[group])
        elif group == "output_text.annotation":
            part = self._located(event, is_late=True).content[event["content_index"]]
            assert event["annotation_index"] == part.annotations
            assert isinstance(event["annotation"]["type"], str)
            part.annotations += 1
        elif group in ("audio", "audio.transcript"):
            assert "item_id" not in event  # it belongs to no item
        else:
            assert verb in _STATES[group], f"unknown type {event['type']}"
            found = self._located(event)
            assert found.item["type"] == group
            found.states.add(verb)

    def _located(self, event: Event, *, is_late: bool = False) -> ReadItem:
        """The item that an event is about.

        Args:
            is_late: It may come after the item is done.
        """
        found = self.items[event["output_index"]]
        assert found.item["id"] == event["item_id"]
        assert is_late or not found.is_done
        found.is_told_late = found.is_done
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
            case "function_call" | "custom_tool_call" | "mcp_call":
                assert item[_FIELD_TEXTS[item["type"]]] == ""
                assert item["type"] == "mcp_call" or item["name"]
            case "code_interpreter_call":
                assert item["code"] in ("", None)
        if item["type"] in _ROUTED:
            assert item["call_id"]
            calls = [(known.item["type"], known.item.get("call_id")) for known in self.items]
            assert (item["type"], item["call_id"]) not in calls
        self.items.append(ReadItem(item))

    def _part(self, event: Event, verb: str, holder: str) -> None:
        found = self._located(event, is_late=True)
        parts: list[ReadPart] = getattr(found, holder)
        index, part = event[f"{holder}_index"], event["part"]
        kind = part["type"]
        text = part["refusal" if kind == "refusal" else "text"] if self._has_text(found, kind) else ""
        if verb == "added":
            assert index == len(parts)
            assert (kind == "summary_text") == (holder == "summary")
            assert text == ""
            parts.append(ReadPart(kind, is_text_done=not self._has_text(found, kind)))
            return
        known = parts[index]
        assert (known.is_text_done, known.is_done) == (True, False)
        assert (kind, text) == (known.type, known.text)
        assert len(part.get("annotations", [])) >= known.annotations
        known.is_done = True

    def _has_text(self, found: ReadItem, kind: str) -> bool:
        assert kind in _PART_TYPES[found.item["type"]] or found.item["type"] == "message"
        return kind in _PART_TYPES[found.item["type"]]

    def _text(self, event: Event, verb: str, part_type: str, key: str) -> None:
        holder = "summary" if part_type == "summary_text" else "content"
        part: ReadPart = getattr(self._located(event, is_late=True), holder)[event[f"{holder}_index"]]
        assert (part.type, part.is_text_done) == (part_type, False)
        assert part_type != "output_text" or isinstance(event["logprobs"], list)
        if verb == "delta":
            part.text += event["delta"]
            return
        assert event[key] == part.text or not self.is_true
        part.text, part.is_text_done = event[key], True

    def _field_text(self, event: Event, verb: str, item_type: str) -> None:
        found = self._located(event)
        assert (found.item["type"], found.is_text_done) == (item_type, False)
        if verb == "delta":
            found.text += event["delta"]
            return
        full = event[_FIELD_TEXTS[item_type]]
        assert full == found.text or not self.is_true
        found.text, found.is_text_done = full, True

    def _done(self, event: Event) -> None:
        item = event["item"]
        found = self._located({**event, "item_id": item["id"]})
        for name in ("id", "type", "call_id"):
            assert item.get(name) == found.item.get(name)
        assert all(part.is_done for part in (*found.content, *found.summary))
        self._adds_up(found, item)
        assert found.is_text_done or item["type"] not in _CALLS
        assert item.get("status") != "in_progress" or item["type"] == "apply_patch_call"
        found.item, found.is_done = item, True

    def _adds_up(self, found: ReadItem, item: dict[str, Any]) -> None:
        for holder in _HOLDERS.get(item["type"], ()):
            parts: list[ReadPart] = getattr(found, holder)
            given = item.get(holder)
            assert isinstance(given, list) or (item["type"], holder) == ("reasoning", "content")
            shown = [(part["type"], part.get("text", part.get("refusal", ""))) for part in given or []]
            assert shown == [(part.type, part.text) for part in parts]
            cited = [len(part.get("annotations", [])) for part in given or []]
            assert all(n >= part.annotations for n, part in zip(cited, parts, strict=True))
        if item["type"] in _FIELD_TEXTS:
            assert (item[_FIELD_TEXTS[item["type"]]] or "") == found.text

    def _ending(self, event: Event) -> None:
        response = event["response"]
        named = event["type"].removeprefix("response.")
        assert response["status"] in ({"failed", "cancelled"} if named == "failed" else {named})
        assert (response["error"] is not None) == (response["status"] == "failed")
        assert len(response["output"]) == len(self.items)
        for item, found in zip(response["output"], self.items, strict=True):
            if found.is_done and not found.is_told_late:  # a field may be told in the end only
                assert {name: item.get(name) for name in found.item} == found.item
                continue
            assert found.is_done or named == "failed", "an item was left open in a response that ended well"
            assert (item["id"], item["type"]) == (found.item["id"], found.item["type"])
            if item["type"] == "apply_patch_call":  # which has no word for it
                continue
            ended = ("incomplete", "failed", *({"completed"} & found.states))
            assert found.is_done or item.get("status", "incomplete") in ended
            self._adds_up(found, item)
