"""Every status × every input, and every way in which a backend can end an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.job import Status
from gateway.core.machine import Input, Started
from gateway.core.reason import Reason
from gateway.core.retry import Now
from gateway.core.transcript import Abandoned, CancelRequested, DeadlinePassed
from gateway.core.upstream import UpstreamAnswer, UpstreamClosed, UpstreamFailed, UpstreamFrames
from gateway.wire.failures import failure
from gateway.wire.sse import Frame

Event = dict[str, Any]
Begin = Callable[..., Any]


def frames(*events: Event) -> UpstreamFrames:
    return UpstreamFrames([Frame("", orjson.dumps(event)) for event in events])


def ending(name: str, **response: Any) -> UpstreamFrames:
    return frames({"type": f"response.{name}", "response": {"id": "resp_theirs", **response}})


MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "Hi"}],
}
DELTA = {"type": "response.output_text.delta", "item_id": "msg_1", "delta": "Hi"}
ANSWER = {"id": "resp_theirs", "status": "completed", "output": [MESSAGE], "usage": {"input_tokens": 1}}
REFUSED = UpstreamFailed(failure("No.", "invalid_prompt"), Reason.REFUSED, 400)

ENDINGS: list[tuple[Input, Status, str]] = [
    (CancelRequested(), Status.CANCELLED, "cancelled"),
    (DeadlinePassed(), Status.FAILED, "deadline"),
    (Abandoned("The gateway was restarted.", Reason.RESTART), Status.FAILED, "interrupted_by_restart"),
    (REFUSED, Status.FAILED, "upstream_refused"),
    (UpstreamClosed(), Status.FAILED, "upstream_closed_early"),
    (UpstreamAnswer(orjson.dumps(ANSWER)), Status.COMPLETED, "upstream_ended"),
    (ending("completed"), Status.COMPLETED, "upstream_ended"),
    (ending("incomplete"), Status.INCOMPLETE, "upstream_ended"),
    (ending("failed"), Status.FAILED, "upstream_failed"),
    (frames({"type": "error", "message": "Oops"}), Status.FAILED, "upstream_error_event"),
    (UpstreamFrames([Frame("", b"<html>")]), Status.FAILED, "bad_event"),
]
"""Inputs that end a response, how, and why."""

SILENT: list[Input] = [
    UpstreamFrames([]),
    UpstreamFrames([Frame("", b"[DONE]"), Frame("ping", b""), Frame("", b" ")]),
    frames({"type": "response.created", "response": {"status": "queued"}}),
    frames({"type": "response.queued"}, {"type": "response.in_progress", "response": []}),
    frames({"type": "keepalive", "sequence_number": 7}, {"type": "response.made_up", "delta": "x"}),
    frames({}, {"type": None}, {"type": 5}, {"type": ["x"]}, {"no": "type"}),
]
"""Inputs of which nothing is stored."""


@pytest.mark.parametrize("status", [status for status in Status if status.is_terminal])
@pytest.mark.parametrize("item", [Started(), frames(DELTA), *SILENT, *(row[0] for row in ENDINGS)], ids=repr)
def test_terminal_status_takes_nothing(status: Status, item: Input, begin: Begin) -> None:
    transcript = begin(status=status).machine
    match item:
        case Started():
            assert transcript.start() == []
        case CancelRequested() | DeadlinePassed() | Abandoned():  # the machine knows that it is over
            with pytest.raises(AssertionError, match="no way from"):
                transcript.stop(item, Now(1000))
        case _:
            assert transcript.receive(item, Now(1000)) == []


@pytest.mark.parametrize("status", [Status.QUEUED, Status.IN_PROGRESS])
@pytest.mark.parametrize(("item", "ends_as", "reason"), ENDINGS, ids=lambda value: str(value)[:60])
def test_live_status_ends_once(
    status: Status, item: Input, ends_as: Status, reason: str, begin: Begin, check: Callable[..., None]
) -> None:
    played = begin(status=status)
    played.receive(Started(), item, *(row[0] for row in ENDINGS), Started(), frames(DELTA))
    (outcome,) = played.outcomes
    assert (outcome.status, outcome.reason) == (ends_as, reason)
    check(played.events)
    assert played.events[-1]["response"] == played.final
    assert (played.final["status"], played.final["id"]) == (ends_as, played.job.id)
    assert (played.final["error"] is None) == (ends_as is not Status.FAILED)


@pytest.mark.parametrize("item", SILENT, ids=repr)
def test_stores_nothing_of(item: Input, begin: Begin) -> None:
    played = begin()
    played.receive(Started())
    before = played.stored
    played.receive(item)
    assert (played.stored, played.outcomes) == (before, [])


def test_start_is_told_once(begin: Begin) -> None:
    played = begin()
    played.receive(Started(), Started())
    names = [event["type"] for event in played.events]
    assert names == ["response.created", "response.queued", "response.in_progress"]
    statuses = [event["response"]["status"] for event in played.events]
    assert statuses == ["queued", "queued", "in_progress"]


def test_cancelled_stream_ends_with_a_failed_event_that_says_cancelled(begin: Begin) -> None:
    played = begin()
    played.receive(Started(), frames(DELTA), CancelRequested())
    last = played.events[-1]
    assert (last["type"], last["response"]["status"]) == ("response.failed", "cancelled")
    assert (last["response"]["error"], last["response"]["usage"]) == (None, None)
    (item,) = last["response"]["output"]
    assert (item["status"], item["content"][0]["text"]) == ("incomplete", "Hi")


def test_job_cancelled_before_its_start_has_a_stream_of_three_events(begin: Begin) -> None:
    played = begin()
    played.receive(CancelRequested())
    assert [event["sequence_number"] for event in played.events] == [0, 1, 2]


@pytest.mark.parametrize("name", ["completed", "incomplete", "failed", "cancelled"])
@pytest.mark.parametrize("status", ["completed", "incomplete", "failed", "cancelled"])
def test_embedded_status_decides_over_the_name_of_the_event(name: str, status: str, begin: Begin) -> None:
    played = begin()
    played.receive(Started(), ending(name, status=status))
    expected = "failed" if status == "cancelled" else status  # nobody but our client cancels
    assert played.final["status"] == expected
    assert played.events[-1]["type"] == f"response.{expected}"


@pytest.mark.parametrize("status", [None, "queued", "in_progress", "done", 5, {}, []])
def test_name_of_the_event_decides_where_the_status_says_nothing(status: Any, begin: Begin) -> None:
    played = begin()
    played.receive(Started(), ending("incomplete", status=status))
    assert played.final["status"] == "incomplete"


@pytest.mark.parametrize("response", [None, [], "x", 5])
def test_ending_without_a_response_is_an_ending(response: Any, begin: Begin) -> None:
    played = begin()
    played.receive(Started(), frames(DELTA, {"type": "response.completed", "response": response}))
    assert played.final["status"] == "completed"
    assert played.final["output"][0]["content"][0]["text"] == "Hi"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            {"type": "error", "code": "rate_limit_exceeded", "message": "Slow", "param": None},
            "rate_limit_exceeded",
            "Slow",
        ),
        (
            {"type": "error", "error": {"code": "insufficient_quota", "message": "Pay"}},
            "insufficient_quota",
            "Pay",
        ),
        (
            {"error": {"message": "Too long", "type": "BadRequestError", "code": 400}},
            "invalid_prompt",
            "Too long",
        ),
        ({"type": "BadRequestError", "error": {"message": "x"}}, "server_error", "x"),
        (
            {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "y"}}},
            "server_error",
            "y",
        ),
        ({"type": "response.failed", "error": {"message": "z", "code": 429}}, "rate_limit_exceeded", "z"),
        (
            {"type": "response.failed", "response": {"error": "bad"}},
            "server_error",
            "bad",
        ),
    ],
    ids=str,
)
def test_error_of_the_backend_fails_the_response(
    error: Event, code: str, message: str, begin: Begin, check: Callable[..., None]
) -> None:
    played = begin()
    played.receive(Started(), frames(DELTA, error, ANSWER, {**DELTA, "delta": "late"}))
    assert played.final["error"] == {"code": code, "message": message}
    assert played.final["output"][0]["content"][0]["text"] == "Hi", "what came before the error is kept"
    check(played.events)


def test_error_named_only_by_the_event_line_fails_the_response(begin: Begin) -> None:
    played = begin()
    played.receive(Started(), UpstreamFrames([Frame("error", b'{"message": "Oops"}')]))
    assert played.final["error"] == {"code": "server_error", "message": "Oops"}


OWN_FRAMES = {
    "a type of its own": Frame("error", b'{"type": "invalid_request_error", "message": "Oops"}'),
    "vLLM, SGLang": Frame(
        "", b'{"object": "error", "message": "Oops", "type": "BadRequestError", "code": 400}'
    ),
    "another name": Frame("", b'{"type": "response.error", "error": {"message": "Oops"}}'),
    "FastAPI": Frame("", b'{"detail": "Oops"}'),
    "flat": Frame("", b'{"message": "Oops", "code": "x"}'),
    "a list": Frame("error", b'[{"error": {"message": "Oops"}}]'),
    "text": Frame("error", b"Oops"),
    "failed, without a response": Frame("response.failed", b'{"error": {"message": "Oops"}}'),
    "failed, with a string": Frame("response.failed", b'{"response": {"error": "Oops"}}'),
    "failed, flat": Frame("", b'{"type": "response.failed", "message": "Oops", "code": null}'),
}


@pytest.mark.parametrize("shape", OWN_FRAMES)
def test_an_error_in_whatever_frame_is_the_backends_last_word(shape: str, begin: Begin) -> None:
    played = begin()
    played.receive(Started(), UpstreamFrames([OWN_FRAMES[shape]]), UpstreamClosed())
    assert played.final["error"]["message"] == "Oops"
    (outcome,) = played.outcomes
    assert outcome.reason in ("upstream_error_event", "upstream_failed"), "not one that is asked again"


MUTE = [Frame("error", b""), Frame("error", b"null"), Frame("error", b"{}"), Frame("", b'{"type": "error"}')]


@pytest.mark.parametrize("mute", MUTE, ids=str)
def test_an_error_without_a_word_waits_for_the_one_that_says_why(mute: Frame, begin: Begin) -> None:
    failed = {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "Why"}}}
    for why in (failed, {"type": "error", "error": {"message": "Why"}}):
        played = begin()
        played.receive(Started(), frames(DELTA), UpstreamFrames([mute]))
        assert played.outcomes == []
        played.receive(frames(why))
        assert played.final["error"] == {"code": "server_error", "message": "Why"}
        assert played.final["output"][0]["content"][0]["text"] == "Hi"


@pytest.mark.parametrize("mute", MUTE, ids=str)
@pytest.mark.parametrize(
    "end", [UpstreamClosed(), UpstreamFailed(failure("The connection broke."), Reason.CUT)], ids=str
)
def test_an_error_that_nobody_explains_is_one_all_the_same(mute: Frame, end: Input, begin: Begin) -> None:
    played = begin()
    played.receive(Started(), UpstreamFrames([mute]), end)
    assert played.final["error"] == {"code": "server_error", "message": "The backend reported an error."}
    (outcome,) = played.outcomes
    assert outcome.reason == "upstream_error_event"


@pytest.mark.parametrize(
    ("error", "reason", "status", "asked_s"),
    [
        ({"code": "rate_limit_exceeded", "message": "Try again in 0.2s."}, "upstream_put_off", 429, 0.2),
        ({"code": "too_many_requests", "message": "x"}, "upstream_put_off", 429, None),
        ({"type": "overloaded_error", "message": "Overloaded"}, "upstream_put_off", 503, None),
        ({"code": "server_is_overloaded", "message": "Later."}, "upstream_put_off", 503, None),
        ({"code": 529, "message": "x", "retry_after": 3}, "upstream_put_off", 529, 3),
        ({"code": "429", "message": "x"}, "upstream_put_off", 429, None),
        ({"code": 502, "message": "x"}, "upstream_error", 502, None),
        ({"code": 524, "message": "x"}, "upstream_error", 524, None),
        ({"code": "server_error", "message": "You can retry your request."}, "upstream_error", 500, None),
        ({"code": "server_error", "message": "x"}, None, None, None),
        ({"code": "insufficient_quota", "message": "x"}, None, 429, None),
        ({"code": 500, "message": "prompt is too long"}, None, 400, None),
        (
            {"code": "rate_limit_exceeded", "message": "Request too large: limit 3, requested 4."},
            None,
            429,
            None,
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("is_failed", [True, False], ids=["response.failed", "error"])
def test_an_error_in_a_stream_may_pass_like_its_status(
    error: dict[str, Any],
    reason: str | None,
    status: int | None,
    asked_s: float | None,
    is_failed: bool,
    begin: Begin,
) -> None:
    event = {"type": "error", "error": error}
    if is_failed:
        event = {"type": "response.failed", "response": {"status": "failed", "output": [], "error": error}}
    played = begin()
    played.receive(Started(), frames(event))
    (outcome,) = played.outcomes
    assert outcome.reason == (reason or ("upstream_failed" if is_failed else "upstream_error_event"))
    (failed,) = played.failed
    assert failed is not None
    assert (failed.reason, failed.status, failed.retry_after_s) == (outcome.reason, status, asked_s)


def test_output_in_the_same_read_as_the_ending_is_in_its_outcome(begin: Begin) -> None:
    played = begin()
    played.receive(Started())
    stored = played.stored
    played.receive(frames(DELTA, {"type": "response.completed"}))
    (outcome,) = played.outcomes
    assert played.stored == stored + outcome.events
    assert (outcome.first_seq, outcome.event_count) == (3, 7)


def test_one_answer_is_streamed_to_the_client(begin: Begin, check: Callable[..., None]) -> None:
    played = begin()
    played.receive(Started(), UpstreamAnswer(orjson.dumps(ANSWER)))
    check(played.events)
    assert "Hi" in [event.get("delta") for event in played.events]
    assert played.final["usage"]["total_tokens"] == 1


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{}", b'{"output":null}', b'{"output":"x"}', b"<html>"]
)
def test_answer_that_is_no_response_fails(body: bytes, begin: Begin) -> None:
    played = begin()
    played.receive(Started(), UpstreamAnswer(body))
    assert (played.final["status"], played.final["error"]["code"]) == ("failed", "server_error")


def test_vllm_incomplete_answer_is_incomplete(begin: Begin) -> None:
    answer = {**ANSWER, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    played = begin()
    played.receive(Started(), UpstreamAnswer(orjson.dumps(answer)))
    assert played.outcomes[0].status is Status.INCOMPLETE
    assert played.final["incomplete_details"] == {"reason": "max_output_tokens"}


def test_content_that_is_a_plain_string_is_a_text(begin: Begin, check: Callable[..., None]) -> None:
    played = begin()
    played.receive(Started(), ending("completed", output=[{**MESSAGE, "content": "Hi"}]))
    check(played.events)
    assert played.final["output"][0]["content"][0]["text"] == "Hi"


@pytest.mark.parametrize(("name", "status"), [("completed", "completed"), ("incomplete", "incomplete")])
def test_items_left_open_end_as_the_response_does(name: str, status: str, begin: Begin) -> None:
    played = begin()
    played.receive(Started(), frames(DELTA), ending(name))
    assert played.final["output"][0]["status"] == status


def test_backend_that_corrects_its_text_at_the_end_is_believed(
    begin: Begin, check: Callable[..., None]
) -> None:
    done = {"type": "response.output_text.done", "item_id": "msg_1", "text": "Bye"}
    played = begin()
    played.receive(Started(), frames(DELTA, done, {"type": "response.completed"}))
    check(played.events, is_true=False)
    assert played.final["output"][0]["content"][0]["text"] == "Bye"


def test_event_about_a_tool_is_not_given_to_an_item_of_another_type(begin: Begin) -> None:
    played = begin()
    searching = {"type": "response.web_search_call.searching", "item_id": "ws_1", "output_index": 4}
    played.receive(Started(), frames(DELTA, searching))
    assert "response.web_search_call.searching" not in [event["type"] for event in played.events]


def test_event_about_a_tool_gets_the_index_of_its_item(begin: Begin, check: Callable[..., None]) -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "in_progress", "action": {"type": "search"}}
    added = {"type": "response.output_item.added", "output_index": 9, "item": search}
    searching = {"type": "response.web_search_call.searching", "item_id": "ws_1", "output_index": 9}
    played = begin()
    played.receive(Started(), frames(DELTA, added, searching), CancelRequested())
    check(played.events)
    (found,) = [event for event in played.events if event["type"] == searching["type"]]
    assert (found["item_id"], found["output_index"]) == ("ws_1", 1)
    assert played.final["output"][1]["status"] == "failed", "it has no status incomplete"


def test_response_beyond_its_bound_fails_with_what_it_has(begin: Begin, check: Callable[..., None]) -> None:
    played = begin(events_bytes_max=5_000)
    played.receive(Started())
    while not played.outcomes:
        played.receive(frames({**DELTA, "delta": "x" * 100}))
        assert len(played.stored) < 12_000
    check(played.events)
    assert (played.final["status"], played.outcomes[0].reason) == ("failed", "too_many_events")
    assert set(played.final["output"][0]["content"][0]["text"]) == {"x"}


inputs = st.lists(
    st.one_of(
        st.sampled_from([Started(), frames(DELTA), frames(DELTA, DELTA), *SILENT]),
        st.sampled_from([row[0] for row in ENDINGS]),
    ),
    max_size=12,
)


@given(several=inputs)
@settings(max_examples=120, deadline=None)
def test_any_inputs_give_at_most_one_ending_and_it_is_last(
    several: list[Input], begin: Begin, check: Callable[..., None]
) -> None:
    played = begin()
    played.receive(Started(), *several)
    assert len(played.outcomes) <= 1
    if not played.outcomes:
        assert not any(item in [row[0] for row in ENDINGS] for item in several)
        played.receive(CancelRequested())
    check(played.events, is_true=False)


words = st.sampled_from(["msg_1", "message", "function_call", "reasoning", "output_text", "refusal", "x", ""])
scalars = st.none() | st.booleans() | st.integers(-1, 2) | words
fields = st.sampled_from(["id", "type", "text", "content", "summary", "status", "error", "usage", "call_id"])
objects = st.dictionaries(
    fields, scalars | st.lists(st.dictionaries(fields, scalars, max_size=2), max_size=2), max_size=3
)
junk = scalars | objects | st.lists(objects, max_size=2)
KEYS = ["item", "part", "delta", "text", "item_id", "output_index", "content_index", "response", "arguments"]
EVENTS = [
    "output_item.added",
    "output_item.done",
    "content_part.added",
    "content_part.done",
    "output_text.delta",
    "output_text.done",
    "output_text.annotation.added",
    "function_call_arguments.delta",
    "refusal.done",
    "function_call_arguments.done",
    "reasoning_part.added",
    "reasoning_summary_text.delta",
    "completed",
    "incomplete",
    "failed",
    "created",
    "mcp_call.completed",
]
garbage = st.lists(
    st.builds(
        lambda name, values: {"type": f"response.{name}", **values},
        st.sampled_from(EVENTS),
        st.dictionaries(st.sampled_from(KEYS), junk),
    ),
    max_size=6,
)


@given(events=garbage)
@example(events=[{"type": "response.content_part.added", "part": {"text": None, "type": True}}])
@settings(max_examples=120, deadline=None)
def test_no_garbage_breaks_the_machine(events: list[Event], begin: Begin, check: Callable[..., None]) -> None:
    played = begin()
    played.receive(Started(), frames(*events), UpstreamClosed())
    assert len(played.outcomes) == 1
    check(played.events, is_true=False)
