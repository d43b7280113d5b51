"""From what went wrong to a status, and what an answer of that status has to have besides."""

from __future__ import annotations

import orjson
import pytest

from gateway.api.http.errors import METHODS, STATUS, backend_error_response, error_bytes, error_response
from gateway.core.reason import Reason
from gateway.wire.errors import Fault, Refusal
from gateway.wire.failures import failure


@pytest.mark.parametrize("fault", Fault)
def test_each_fault_has_a_status_and_a_body_as_openai_shapes_it(fault: Fault) -> None:
    answer = error_response(Refusal(fault, "why", code="a_code", param="p"))
    assert answer.status == STATUS[fault]
    assert isinstance(answer.body, bytes)
    error = orjson.loads(answer.body)["error"]
    assert (error["message"], error["code"], error["param"]) == ("why", "a_code", "p")


def test_a_401_says_how_a_405_what_and_a_503_when() -> None:
    refused = error_response(Refusal(Fault.UNAUTHENTICATED, "who?"))
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert error_response(Refusal(Fault.METHOD, "no")).headers["Allow"] == METHODS
    busy = error_response(Refusal(Fault.UNAVAILABLE, "later", retry_after_s=7))
    assert busy.headers["Retry-After"] == "7"
    upgrade = error_response(Refusal(Fault.NO_WEBSOCKET, "no"))
    assert (upgrade.headers["Upgrade"], upgrade.headers["Connection"]) == ("HTTP/1.1", "Upgrade, close")
    assert "gzip" in error_response(Refusal(Fault.UNSUPPORTED_CODING, "no")).headers["Accept-Encoding"]


def test_a_connection_without_a_request_gets_the_same_answer_whole_and_its_last() -> None:
    refusal = Refusal(Fault.HEAD_TOO_LARGE, "too much")
    head, _, body = error_bytes(refusal).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 431 Request Header Fields Too Large"
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    assert (fields["connection"], fields["content-length"]) == ("close", str(len(body)))
    assert body == refusal.body()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (429, "rate_limit_error"),
        (503, "server_error"),
        (404, "invalid_request_error"),
    ],
)
def test_a_backends_own_status_is_passed_on(status: int, kind: str) -> None:
    answer = backend_error_response(status, Reason.ERROR, failure("said", code="x"), None)
    assert answer.status == status
    assert isinstance(answer.body, bytes)
    assert orjson.loads(answer.body)["error"] == {"message": "said", "type": kind, "param": None, "code": "x"}


def test_an_answer_that_failed_after_its_200_gets_a_status_that_says_what_happened() -> None:
    for reason in Reason:
        if reason.http_status is not None:
            answer = backend_error_response(200, reason, failure("said"), 100_000.5)
            assert answer.status == reason.http_status >= 400
            assert answer.headers["Retry-After"] == str(24 * 3600)
