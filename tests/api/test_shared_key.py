"""Behind a key that all callers share, nothing that names a stored response is passed on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.api.http.bodies import scanned
from gateway.api.identity.shared_key import is_kept_apart, keep_sockets_apart, kept_apart
from gateway.wire.errors import Fault, Refusal
from tests.support.heads import head

SHARED: Any = SimpleNamespace(sees_callers=False)
SEEING: Any = SimpleNamespace(sees_callers=True)
PATHS = [
    "/v1/responses/resp_1",
    "/v1/RESPONSES/resp_1",
    "/v1/%72esponses/resp_1",
    "/v1//responses;x/resp_1",
    "/v1/x/..%2Fresponses/resp_1",
    "/v1\\responses\\resp_1",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_any_server_could_take_for_a_stored_response_is_not_there(path: str) -> None:
    with pytest.raises(Refusal) as refusal:
        is_kept_apart(head("GET", path), SHARED, "/v1/responses")
    assert refusal.value.fault is Fault.NOT_FOUND
    with pytest.raises(Refusal):
        keep_sockets_apart(head("GET", path), SHARED)
    assert not is_kept_apart(head("GET", path), SEEING, "/v1/responses")
    keep_sockets_apart(head("GET", path), SEEING)


def test_what_only_computes_is_passed_on_once_its_body_was_looked_at() -> None:
    assert is_kept_apart(head("POST", "/v1/responses/input_tokens"), SHARED, "/v1/responses")
    assert is_kept_apart(head("POST", "/v1/responses/compact?x=1"), SHARED, "/v1/responses")
    with pytest.raises(Refusal):
        is_kept_apart(head("GET", "/v1/responses/input_tokens"), SHARED, "/v1/responses")
    assert not is_kept_apart(head("POST", "/v1/chat/completions"), SHARED, "/v1/responses")


@pytest.mark.parametrize(
    "body",
    [
        b'{"previous_response_id":"resp_1"}',
        b'{"previous_response_id":"resp_1","previous_response_id":null}',
        b'{"previous\\u005fresponse_id":"resp_1"}',
        '{"previous_response_id":"resp_1"}'.encode("utf-16"),
        b'\xef\xbb\xbf{"previous_response_id":"resp_1"}',
    ],
)
async def test_a_body_that_may_go_on_from_a_response_is_refused_however_it_is_written(body: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        await scanned(kept_apart(body))
    assert refusal.value.code == "previous_response_not_found"


@pytest.mark.parametrize("body", [b"{}", b'{"input":"x"}', b'{"previous_response_id":null}', b"no json"])
async def test_a_body_that_names_no_response_passes(body: bytes) -> None:
    await scanned(kept_apart(body))
