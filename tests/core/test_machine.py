"""What a run does about what comes: playbooks of inputs and commands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from gateway.core.acceptance import foreground_job
from gateway.core.job import FIRST_OUTPUT_SEQ, Job, Status
from gateway.core.machine import (
    BackOff,
    CallBackend,
    ClientWaits,
    Command,
    Finish,
    Input,
    JobMachine,
    Rewind,
    Started,
    Task,
)
from gateway.core.reason import Reason
from gateway.core.retry import Again, Now, RetryPolicy
from gateway.core.transcript import Abandoned, Append, CancelRequested, DeadlinePassed
from gateway.core.upstream import OtherApi, UpstreamAnswer, UpstreamClosed, UpstreamFailed, UpstreamFrames
from gateway.wire.chat.speech import ChatSpeech
from gateway.wire.errors import Refusal
from gateway.wire.failures import failure
from gateway.wire.speech_responses import ResponsesSpeech
from gateway.wire.sse import Frame, split_frames
from tests.core.conftest import NOW_S, accepted

NOW = Now(NOW_S * 1000, roll=0.5)
PATIENCE = RetryPolicy(
    down_wait_s=300,
    put_offs_max=2,
    put_off_first_s=1,
    put_off_max_s=120,
    backoff_first_s=0.1,
    backoff_max_s=2,
)
BODY = {"model": "tiny", "input": "Hello", "background": True}
DELTA = UpstreamFrames(
    [Frame("", b'{"type":"response.output_text.delta","item_id":"msg_1","output_index":0,"delta":"Hi"}')]
)
ANSWER = UpstreamAnswer(orjson.dumps({"id": "resp_theirs", "status": "completed", "output": []}))
CUT = UpstreamFailed(failure("The connection broke."), Reason.CUT)
BUSY = UpstreamFailed(failure("Later."), Reason.PUT_OFF, 429, 7.0)
LOST = UpstreamFailed(failure("Who are you?"), Reason.REFUSED, 401)
LATE_SYSTEM = [
    {"role": "user", "content": "Hello"},
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Well?"},
]
SAID = b'{"error": {"message": "System message must be at the beginning."}}'
REFUSED = UpstreamFailed(failure("System message must be at the beginning."), Reason.REFUSED, 400, said=SAID)


def background(**more: Any) -> JobMachine:
    """A run of a job that was claimed."""
    job: Job = replace(accepted({**BODY}).job, status=Status.IN_PROGRESS, is_followable=False)
    job = replace(job, **{name: more.pop(name) for name in list(more) if name in Job.__slots__})
    return JobMachine(_task(job, BODY, **more))


def plain(**more: Any) -> JobMachine:
    """A run of a plain request."""
    body = {"model": "tiny", "input": "Hello", "stream": more.pop("stream", True)}
    job = foreground_job(body, response_id="resp_" + "b2" * 24, tenant=bytes(32), now_ms=NOW.now_ms)
    return JobMachine(_task(replace(job, attempt=more.pop("attempt", 1)), body, **more))


def _task(job: Job, body: dict[str, Any], *, input: Any = "Hello", **more: Any) -> Task:
    given = {"speech": ResponsesSpeech(), "attempts_max": 2, **more}
    return Task(
        job,
        body,
        lambda speech: input,
        "/v1/responses",
        retry_policy=PATIENCE,
        events_bytes_max=2**20,
        **given,
    )


def play(machine: JobMachine, *inputs: Input, now: Now = NOW) -> list[str]:
    """The commands, in words."""
    return [_word(command) for item in inputs for command in machine.receive(item, now)]


def _word(command: Command) -> str:
    match command:
        case CallBackend(target=target, version=version):
            return f"call {target} {version}"
        case Append(count=count, has_output=has_output):
            return f"append {count} {'output' if has_output else 'lifecycle'}"
        case Rewind(seq):
            return f"rewind {seq}"
        case BackOff():
            return "rest"
        case Again(reason=reason):
            return f"again {reason}"
        case Finish(outcome):
            return f"finish {outcome.status} {outcome.reason}"


CALLED = ["append 1 lifecycle", "call /v1/responses 0"]


def test_a_run_calls_stores_and_ends() -> None:
    run = background()
    assert play(run, Started()) == CALLED
    assert play(run, DELTA) == ["append 3 output"]
    assert play(run, ANSWER) == ["finish completed upstream_ended"]
    assert play(run, DELTA, CUT, CancelRequested(), Started()) == [], "nothing follows the last command"


@pytest.mark.parametrize("status", [status for status in Status if status.is_terminal])
def test_a_job_that_has_ended_is_not_run(status: Status) -> None:
    run = background(status=status)
    assert play(run, Started(), DELTA, ANSWER, CUT, CancelRequested(), DeadlinePassed()) == []


@pytest.mark.parametrize(
    ("stop", "word"),
    [
        (CancelRequested(), "finish cancelled cancelled"),
        (DeadlinePassed(), "finish failed deadline"),
        (Abandoned("x", Reason.DEFECT), "finish failed defect"),
    ],
)
@pytest.mark.parametrize(
    "before", [(), (DELTA,), (OtherApi(ChatSpeech()),)], ids=["called", "output", "other"]
)
def test_it_is_stopped_at_any_time(stop: Input, word: str, before: tuple[Input, ...]) -> None:
    run = background()
    play(run, Started(), *before)
    assert play(run, stop, stop) == [word]


def test_a_backend_that_speaks_the_other_api_is_called_in_it() -> None:
    run = background()
    assert play(run, Started(), OtherApi(ChatSpeech())) == [*CALLED, "call /v1/chat/completions 1"]
    assert play(run, ANSWER) == ["again bad_event"], "the answer is read as one of that API"


def test_a_refusal_is_learned_from_and_costs_no_attempt() -> None:
    run = background(speech=ChatSpeech(), input=LATE_SYSTEM)
    (*_, first) = run.receive(Started(), NOW)
    (second,) = run.receive(REFUSED, NOW)
    assert isinstance(first, CallBackend)
    assert isinstance(second, CallBackend)
    assert second.version == 1
    assert second.lesson
    assert first.body != second.body
    chat = UpstreamAnswer(b'{"choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}]}')
    assert play(run, chat)[-1] == "finish completed upstream_ended"


def test_a_refusal_after_output_is_an_end() -> None:
    chat = UpstreamFrames([Frame("", b'{"choices":[{"index":0,"delta":{"content":"Hi"}}]}')])
    run = background(speech=ChatSpeech(), input=LATE_SYSTEM)
    assert play(run, Started(), chat, REFUSED)[-1] == "finish failed upstream_refused"


def test_what_broke_off_is_run_again_while_nobody_has_seen_output() -> None:
    assert play(background(), Started(), CUT)[-1] == "again upstream_cut"
    assert play(background(), Started(), DELTA, CUT)[-1] == "again upstream_cut"
    assert play(background(is_followable=True), Started(), DELTA, CUT)[-1] == "finish failed upstream_cut"
    assert play(background(attempt=2), Started(), CUT)[-1] == "finish failed upstream_cut"
    assert play(background(), Started(), DELTA, UpstreamClosed())[-1] == "again upstream_closed_early"


def test_a_retry_waits_for_its_place_in_the_budget() -> None:
    run = background()
    run.receive(Started(), NOW)
    (again,) = run.receive(CUT, replace(NOW, retry_in_s=40))
    assert isinstance(again, Again)
    assert (again.after_s, again.is_attempt) == (40, True)


def test_a_busy_backend_is_left_alone_by_the_others_if_it_says_so_within_its_answer() -> None:
    busy = UpstreamFrames([Frame("", b'{"type":"error","code":"rate_limit_exceeded","message":"Later."}')])
    assert play(background(), Started(), BUSY)[-1:] == ["again upstream_put_off"], "that was done by the call"
    assert play(background(), Started(), busy)[-2:] == ["rest", "again upstream_put_off"]
    own = background(is_limited_alone=True)
    *_, call = own.receive(Started(), NOW)
    assert isinstance(call, CallBackend)
    assert call.is_limited_alone, "so that whoever makes it judges a 429 alike"
    (again,) = own.receive(busy, NOW)
    assert isinstance(again, Again)
    assert again.caller_rests_s > 0, "a limit of this caller's own concerns nobody else"


def test_a_credential_that_went_with_a_process_is_named() -> None:
    run = background(is_credential_lost=True)
    assert play(run, Started(), LOST)[-1] == "finish failed credential_lost"
    assert play(background(), Started(), LOST)[-1] == "finish failed upstream_refused"


def test_what_cannot_be_called_at_all_is_not() -> None:
    run = background(obstacle=Abandoned("It cannot be read.", Reason.CREDENTIAL_UNREADABLE))
    assert play(run, Started()) == ["append 1 lifecycle", "finish failed credential_unreadable"]


def test_what_the_api_cannot_say_ends_a_job_and_refuses_a_plain_request() -> None:
    unsayable = [{"role": "nobody", "content": "Hello"}]
    speech = ChatSpeech()
    run = background(speech=speech, input=unsayable)
    assert play(run, Started()) == ["append 1 lifecycle", "finish failed unsupported_by_backend"]
    with pytest.raises(Refusal):
        plain(speech=speech, input=unsayable).receive(Started(), NOW)


def test_a_second_run_tells_nothing_twice() -> None:
    run = background(next_seq=FIRST_OUTPUT_SEQ)
    assert play(run, Started()) == ["call /v1/responses 0"]


def test_a_second_run_begins_where_the_output_of_the_lost_one_began() -> None:
    run = background(next_seq=FIRST_OUTPUT_SEQ + 40)
    assert play(run, Started()) == [f"rewind {FIRST_OUTPUT_SEQ}", "call /v1/responses 0"]
    appended = [command for command in run.receive(DELTA, NOW) if isinstance(command, Append)]
    first = split_frames(b"".join(command.events for command in appended))[0]
    assert b'"sequence_number":%d' % FIRST_OUTPUT_SEQ in first


def test_a_plain_stream_begins_when_something_has_come_or_its_client_has_waited() -> None:
    run = plain()
    assert play(run, Started()) == ["call /v1/responses 0"]
    assert play(run, DELTA) == ["append 2 lifecycle", "append 3 output"]
    run = plain()
    assert play(run, Started(), ClientWaits(), ClientWaits()) == [
        "call /v1/responses 0",
        "append 2 lifecycle",
    ]
    assert play(run, DELTA) == ["append 3 output"]


def test_a_plain_request_that_failed_before_it_began_is_nothing_but_an_error() -> None:
    run = plain()
    run.receive(Started(), NOW)
    (finish,) = run.receive(BUSY, NOW)
    assert isinstance(finish, Finish)
    assert (finish.is_all, finish.failed) == (True, BUSY)
    run = plain()
    run.receive(Started(), NOW)
    run.receive(ClientWaits(), NOW)
    (finish,) = run.receive(BUSY, NOW)
    assert isinstance(finish, Finish)
    assert not finish.is_all


def test_a_plain_request_does_not_wait_for_the_budget() -> None:
    run = plain(stream=False)
    run.receive(Started(), NOW)
    (finish,) = run.receive(CUT, replace(NOW, retry_in_s=1))
    assert isinstance(finish, Finish)
    assert (finish.outcome.reason, finish.lacks_budget) == (Reason.CUT, True)


def test_a_plain_answer_that_was_lost_is_asked_for_once_more() -> None:
    assert play(plain(stream=False), Started(), CUT)[-1] == "again upstream_cut"
    assert play(plain(stream=False, attempt=2), Started(), CUT)[-1] == "finish failed upstream_cut"
    assert play(plain(stream=True), Started(), CUT)[-1] == "finish failed upstream_cut"
    assert play(plain(stream=False), Started(), BUSY)[-1] == "finish failed upstream_put_off"
