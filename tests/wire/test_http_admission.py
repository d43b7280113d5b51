"""Heads that mean one thing only are let in; the probes of `tests/api` try the same over sockets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.wire.errors import Refusal
from gateway.wire.http.admission import admit, is_handshake, is_websocket
from gateway.wire.http.head import Head, Headers

GOOD = Head("POST", "/v1/responses", (1, 1), Headers([("Host", "gateway:8000")]))
UPGRADE = (("Host", "g"), ("Connection", "keep-alive, Upgrade"), ("Upgrade", "WebSocket"))
HANDSHAKE = (*UPGRADE, ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="))


def with_headers(*pairs: tuple[str, str]) -> Head:
    return replace(GOOD, headers=Headers([("Host", "g"), *pairs]))


@pytest.mark.parametrize(
    "head",
    [
        GOOD,
        replace(GOOD, version=(1, 0), headers=Headers([])),
        replace(GOOD, target="/v1/models/org%2Fname?a=//b"),
        replace(GOOD, method="PROPFIND"),
        with_headers(("Transfer-Encoding", "Chunked")),
        with_headers(("Expect", "100-Continue")),
        replace(GOOD, headers=Headers(HANDSHAKE)),
    ],
)
def test_let_in(head: Head) -> None:
    admit(head)


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (replace(GOOD, version=(2, 0)), "http_version"),
        (replace(GOOD, headers=Headers([])), "invalid_host"),
        (replace(GOOD, headers=Headers([("Host", "a/health?x=")])), "invalid_host"),
        (replace(GOOD, method="trace"), "unsupported_method"),
        (replace(GOOD, target="/v1//models"), "invalid_path"),
        (replace(GOOD, target="/v1/../admin"), "invalid_path"),
        (replace(GOOD, target="/v1/%72esponses"), "invalid_path"),
        (replace(GOOD, target="http://other/v1/models"), "invalid_path"),
        (
            replace(GOOD, version=(1, 0), headers=Headers([("Transfer-Encoding", "chunked")])),
            "invalid_framing",
        ),
        (with_headers(("Transfer-Encoding", "gzip, chunked")), "unsupported_transfer_coding"),
        (with_headers(("Expect", "wonders")), "unsupported_expectation"),
        (with_headers(("api-key", "a"), ("X-Api-Key", "b")), "invalid_value"),
        (replace(GOOD, headers=Headers(HANDSHAKE), has_body=True), "upgrade_with_body"),
    ],
)
def test_refused(head: Head, code: str) -> None:
    with pytest.raises(Refusal) as caught:
        admit(head)
    assert caught.value.code == code


def test_a_handshake_is_a_websocket_with_a_key_in_version_13() -> None:
    asked = replace(GOOD, method="GET", headers=Headers(HANDSHAKE))
    assert is_websocket(asked)
    assert is_handshake(asked)
    assert not is_handshake(replace(asked, method="POST"))
    assert not is_handshake(replace(asked, headers=Headers(UPGRADE)))
    assert not is_websocket(replace(asked, headers=Headers(HANDSHAKE[:1] + HANDSHAKE[2:])))
