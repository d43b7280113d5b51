"""Three ways to show one response, as the products that they come from document them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types.responses import Response

from gateway.wire import events, responses
from gateway.wire.dialects import Dialect
from gateway.wire.failures import failure
from gateway.wire.sse import KEEP_ALIVE, data_of, split_frames

HEX = "ab" * 24
QUEUED = responses.accepted({"model": "m", "input": "Hi"}, response_id=f"resp_{HEX}", created_at=1)
ALL = pytest.mark.parametrize("dialect", list(Dialect))
AS_THEY_ARE = pytest.mark.parametrize("dialect", [Dialect.OPENAI, Dialect.MKA1])
ZEROS = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}


def _ended(status: str, **more: Any) -> dict[str, Any]:
    return responses.ended(QUEUED, status=status, output=[], now_s=2, **more)


def _shown(dialect: Dialect, response: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(dialect.shown(orjson.dumps(response)))
    return found


def _failed(code: str, message: str) -> dict[str, Any]:
    return _shown(Dialect.PHARIA, _ended("failed", error=failure(message, code)))


@AS_THEY_ARE
@pytest.mark.parametrize("response", [QUEUED, _ended("completed"), _ended("failed", error=failure("no"))])
def test_openai_and_mka1_show_every_object_and_event_as_it_is_stored(
    dialect: Dialect, response: dict[str, Any]
) -> None:
    stored = orjson.dumps(response)
    assert dialect.shown(stored) is stored
    event = events.frame({"type": "response.created", "response": response}, 0)
    assert dialect.shown_events(event) is event
    assert dialect.accepted_status == 200


@AS_THEY_ARE
def test_a_handle_is_nothing_to_openai_and_mka1(dialect: Dialect) -> None:
    assert dialect.stored_id(f"req_{HEX}") == f"req_{HEX}"


def test_what_each_says_first_and_lets_be_streamed() -> None:
    normal = ("response.created", "response.queued")
    assert {each: each.opening for each in Dialect} == {
        Dialect.OPENAI: normal,
        Dialect.PHARIA: normal,
        Dialect.MKA1: normal[::-1],
    }
    assert [each for each in Dialect if each.streams_any] == [Dialect.MKA1]
    assert [each for each in Dialect if not each.replays_ended] == [Dialect.MKA1]


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_pharia_shows_a_handle_in_progress_until_the_end(status: str) -> None:
    shown = _shown(Dialect.PHARIA, {**QUEUED, "status": status})
    assert shown == {**QUEUED, "status": "in_progress", "id": f"req_{HEX}"}
    assert Dialect.PHARIA.accepted_status == 202


@pytest.mark.parametrize("status", ["completed", "incomplete"])
def test_pharia_shows_the_permanent_id_at_the_end(status: str) -> None:
    stored = _ended(status)
    assert _shown(Dialect.PHARIA, stored) == stored


def test_pharia_keeps_the_handle_of_a_cancelled_one() -> None:
    stored = _ended("cancelled")
    assert _shown(Dialect.PHARIA, stored) == {**stored, "id": f"req_{HEX}"}


def test_a_failed_one_of_pharia_has_a_type_and_a_usage_of_zeros_that_the_sdk_can_read() -> None:
    shown = _failed("server_error", "Request failed")
    assert shown["id"] == f"req_{HEX}"
    assert shown["error"] == {"type": "server_error", "message": "Request failed", "code": "server_error"}
    assert {name: shown["usage"][name] for name in ZEROS} == ZEROS
    usage = Response.model_validate(shown).usage
    assert usage is not None
    assert usage.input_tokens_details.cached_tokens == usage.output_tokens_details.reasoning_tokens == 0


def test_a_usage_that_the_backend_reported_is_not_made_zero() -> None:
    answer = {"usage": {"input_tokens": 3, "output_tokens": 1}}
    stored = _ended("failed", error=failure("no"), answer=answer)
    assert _shown(Dialect.PHARIA, stored)["usage"]["total_tokens"] == 4


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("invalid_prompt", "The input was rejected by the safety guardrail."),
        ("invalid_prompt", "Blocked by Guardrails"),
        ("invalid_prompt", "content_filter"),
        ("invalid_prompt", "The prompt triggered our content management policy."),
        ("invalid_prompt", "Your request was rejected as a result of our safety system."),
        ("image_content_policy_violation", "no"),
        ("bio_policy", "no"),
    ],
)
def test_an_input_that_a_filter_refused_is_a_guardrail_violation(code: str, message: str) -> None:
    assert _failed(code, message)["error"]["type"] == "guardrail_violation"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("invalid_prompt", "Unknown parameter 'safety_identifier'."),
        ("invalid_prompt", "The model `x` does not exist."),
        ("server_error", "The guardrail service is down."),
        ("rate_limit_exceeded", "Slow down."),
    ],
)
def test_every_other_failure_is_a_server_error(code: str, message: str) -> None:
    assert _failed(code, message)["error"]["type"] == "server_error"


@ALL
def test_the_permanent_id_names_a_response_in_every_dialect(dialect: Dialect) -> None:
    assert dialect.stored_id(f"resp_{HEX}") == f"resp_{HEX}"


def test_pharia_knows_a_response_by_its_handle() -> None:
    assert Dialect.PHARIA.stored_id(f"req_{HEX}") == f"resp_{HEX}"


def test_events_of_pharia_embed_the_response_in_its_form_and_keep_all_else() -> None:
    delta = events.frame({"type": "response.output_text.delta", "delta": "response.created\u2028"}, 3)
    block = b"".join(
        [
            events.frame({"type": "response.created", "response": QUEUED}, 0),
            events.frame({"type": "response.queued", "response": QUEUED}, 1),
            events.frame(
                {"type": "response.in_progress", "response": {**QUEUED, "status": "in_progress"}}, 2
            ),
            delta,
            events.frame(
                {"type": "response.failed", "response": _ended("failed", error=failure("\u2028"))}, 4
            ),
        ]
    )
    shown = split_frames(Dialect.PHARIA.shown_events(block))
    assert shown[3] == delta
    parsed = [orjson.loads(data_of(frame)) for frame in shown]
    assert [event["sequence_number"] for event in parsed] == [0, 1, 2, 3, 4]
    embedded = [event["response"] for event in parsed if "response" in event]
    assert [each["id"] for each in embedded] == [f"req_{HEX}"] * 4
    assert [each["status"] for each in embedded] == ["in_progress"] * 3 + ["failed"]
    assert embedded[-1]["error"]["type"] == "server_error"
    assert "\u2028".encode() not in shown[4]


@ALL
def test_a_comment_is_left_alone(dialect: Dialect) -> None:
    assert dialect.shown_events(KEEP_ALIVE) == KEEP_ALIVE
