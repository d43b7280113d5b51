"""What a backend's errors become: recorded bodies, error events, and shapes in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import ResponseError

from gateway.wire.failures import MESSAGE_CHARS_MAX, failure, of_event, of_status

TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"


def recorded() -> list[Any]:
    found = []
    for path in sorted(TRANSCRIPTS.glob("*/*.txt")):
        head, _, body = path.read_bytes().partition(b"\n\n< ")[2].partition(b"\n\n")
        if (status := int(head[:3])) >= 400:
            found.append(pytest.param(status, body, id=f"{path.parent.name}/{path.stem}"))
    assert len(found) > 30, "the transcripts are gone"
    return found


@pytest.mark.parametrize(("status", "body"), recorded())
def test_recorded_error_keeps_its_message_and_gets_a_code_of_the_api(status: int, body: bytes) -> None:
    error = of_status(status, body)
    assert error["code"] == ("server_error" if status in (405, 500, 501) else "invalid_prompt")
    assert 0 < len(error["message"]) <= MESSAGE_CHARS_MAX
    ResponseError.model_validate(error)
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        assert error["message"].startswith(f"The backend answered with status {status}")
        return
    said = parsed.get("error", parsed)
    said = said if isinstance(said, str) else said.get("message") or said.get("detail")
    said = said if isinstance(said, str) else orjson.dumps(said).decode()
    assert error["message"] == said.split("\n\n  File ")[0]


def test_stack_trace_of_a_backend_is_not_shown() -> None:
    body = (TRANSCRIPTS / "llamacpp-python" / "chat-json-schema.txt").read_bytes().rpartition(b"\n\n")[2]
    assert b'File \\"' in body
    assert "File" not in of_status(500, body)["message"]


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (429, b'{"error":{"message":"Slow down"}}', "rate_limit_exceeded", "Slow down"),
        (429, b'{"error":{"message":"Pay","code":"insufficient_quota"}}', "insufficient_quota", "Pay"),
        (429, b'{"error":{"message":"Pay","type":"insufficient_quota"}}', "insufficient_quota", "Pay"),
        (400, b'{"error":{"message":"No","code":"image_too_large"}}', "image_too_large", "No"),
        (400, b'{"error":{"message":"No","code":"made_up"}}', "invalid_prompt", "No"),
        (400, b'{"error":"just text"}', "invalid_prompt", "just text"),
        (
            400,
            b'{"object":"error","message":"flat","type":"BadRequestError","code":400}',
            "invalid_prompt",
            "flat",
        ),
        (422, b'{"detail":[{"loc":["body"]}]}', "invalid_prompt", '[{"loc":["body"]}]'),
        (401, b'{"error":{"message":"Bad key"}}', "server_error", "Bad key"),
        (
            503,
            b'{"error":{"message":""}}',
            "server_error",
            'The backend answered with status 503: {"error":{"message":""}}',
        ),
        (
            500,
            b"Internal Server Error",
            "server_error",
            "The backend answered with status 500: Internal Server Error",
        ),
        (502, b"<html><body>Bad</body></html>", "server_error", "The backend answered with status 502."),
        (500, b"", "server_error", "The backend answered with status 500."),
        (500, b"\x00\x01", "server_error", "The backend answered with status 500."),
        (500, b"null", "server_error", "The backend answered with status 500: null"),
        (413, b"", "invalid_prompt", "The backend answered with status 413."),
    ],
    ids=repr,
)
def test_error_answer(status: int, body: bytes, code: str, message: str) -> None:
    assert of_status(status, body) == {"code": code, "message": message}


@pytest.mark.parametrize(
    ("event", "code", "message"),
    [
        ({"type": "error", "code": "server_error", "message": "Oops", "param": None}, "server_error", "Oops"),
        (
            {"type": "error", "error": {"code": "insufficient_quota", "message": "Pay"}},
            "insufficient_quota",
            "Pay",
        ),
        (
            {"type": "error", "error": {"type": "insufficient_quota", "code": None, "message": "Pay"}},
            "insufficient_quota",
            "Pay",
        ),
        (
            {"error": {"message": "Too long", "type": "BadRequestError", "code": 400}},
            "invalid_prompt",
            "Too long",
        ),
        ({"error": {"message": "Busy", "code": 429}}, "rate_limit_exceeded", "Busy"),
        ({"type": "error", "code": 500, "message": "Oops"}, "server_error", "Oops"),
        ({"type": "error", "error": "text"}, "server_error", "text"),
        ({"code": "rate_limit_exceeded", "message": "Later"}, "rate_limit_exceeded", "Later"),
        ({"type": "error"}, "server_error", "The backend reported an error."),
        ({"type": "error", "error": {}}, "server_error", "The backend reported an error."),
        ({"type": "error", "error": ""}, "server_error", "The backend reported an error."),
        ({"type": "error", "message": ""}, "server_error", "The backend reported an error."),
    ],
    ids=str,
)
def test_error_event(event: dict[str, Any], code: str, message: str) -> None:
    assert of_event(event) == {"code": code, "message": message}


def test_long_message_is_cut() -> None:
    long = "x" * 100_000
    assert len(of_event({"message": long})["message"]) == MESSAGE_CHARS_MAX
    assert len(of_status(400, orjson.dumps({"error": {"message": long}}))["message"]) == MESSAGE_CHARS_MAX
    assert len(of_status(500, long.encode())["message"]) < MESSAGE_CHARS_MAX


names = st.sampled_from(["error", "message", "code", "detail"])
scalars = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5)
json = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner))


@given(value=json, status=st.integers(400, 599))
@settings(max_examples=120, deadline=None)
def test_any_error_has_a_known_code_and_a_message(value: Any, status: int) -> None:
    event = value if isinstance(value, dict) else {"error": value}
    for error in (
        of_status(status, str(value).encode()),
        of_status(status, orjson.dumps(value)),
        of_event(event),
    ):
        ResponseError.model_validate(error)
        assert error["message"]
    assert failure("x") == {"code": "server_error", "message": "x"}
