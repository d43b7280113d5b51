"""What a backend asks for by `Retry-After`, and what a failed call is called."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime

import aiohttp
import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.config import UpstreamSettings
from gateway.core.reason import Reason
from gateway.outbound.client import FAILURES, asked_wait_s, explain, make_session

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("30", 30),
        (" 7 ", 7),
        ("0", 0),
        ("1.5", 1.5),
        ("99999999999999999999", 1e20),
        ("9" * 400, float("inf")),
        ("Sat, 21 Nov 2026 12:01:30 GMT", 90),
        ("Saturday, 21-Nov-26 12:01:30 GMT", 90),
        ("Sat Nov 21 12:01:30 2026", 90),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 0),
        ("Sat, 21 Nov 2026 14:00:30 +0200", 30),
        ("", None),
        ("-5", None),
        ("soon", None),
        ("1e9", None),
        ("0x10", None),
        ("30, 60", None),
        ("٣", None),  # a digit, but not one of the header's
        ("Sat, 99 Nov 2026 12:01:30 GMT", None),
        ("Sat, 21 Nov 99999999999 12:01:30 GMT", None),
    ],
)
def test_a_number_of_seconds_or_a_date_is_understood_and_nothing_else(
    header: str, seconds: float | None
) -> None:
    assert asked_wait_s({"Retry-After": header}, NOW) == seconds


def test_milliseconds_say_it_better_and_names_are_in_any_case() -> None:
    both = CIMultiDictProxy(CIMultiDict({"retry-after-ms": "1500", "RETRY-AFTER": "2"}))
    assert asked_wait_s(both, NOW) == 1.5
    assert asked_wait_s({"Retry-After-Ms": "x", "Retry-After": "2"}, NOW) == 2
    assert asked_wait_s({}, NOW) is None


async def _failing(url: str) -> BaseException:
    settings = UpstreamSettings(url="http://unused.test/v1", connect_timeout_s=0.2)
    async with make_session(settings, keeps_connections=False) as session:
        with pytest.raises(FAILURES) as caught:
            async with session.post(url, data=b"{}"):
                pass
    return caught.value


async def test_a_refused_connection_is_told_without_its_address() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    reason, refusal = explain(await _failing(f"http://127.0.0.1:{port}/v1"), 1)
    assert (reason, refusal.message) == (
        Reason.UNREACHABLE,
        "The backend could not be reached: connection refused.",
    )


async def test_a_name_that_nobody_knows_is_told_without_it() -> None:
    reason, refusal = explain(await _failing("http://no-such-host.invalid/v1"), 1)
    assert (reason, refusal.message) == (
        Reason.UNREACHABLE,
        "The backend could not be reached: its name could not be resolved.",
    )


async def test_a_server_without_tls_is_told_so() -> None:
    async def answer_in_clear(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer_in_clear, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reason, refusal = explain(await _failing(f"https://127.0.0.1:{port}/v1"), 1)
    assert (reason, refusal.message) == (
        Reason.UNREACHABLE,
        "The backend could not be reached: the TLS handshake failed.",
    )


async def test_a_server_that_takes_no_connection_is_told_so() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = []
        for _ in range(4):  # more than its queue has room for: what comes now gets no answer
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(address)
            waiting.append(one)
        try:
            reason, refusal = explain(await _failing(f"http://127.0.0.1:{address[1]}/v1"), 1)
        finally:
            for one in waiting:
                one.close()
    assert (reason, refusal.message) == (
        Reason.UNREACHABLE,
        "The backend could not be reached: there was no connection in time.",
    )


def test_silence_is_told_with_its_limit_and_anything_else_was_a_broken_connection() -> None:
    assert explain(TimeoutError(), 120.0)[1].message == "The backend did not answer within 120 s."
    for error in (aiohttp.ServerDisconnectedError(), ConnectionResetError(), aiohttp.ClientPayloadError()):
        reason, refusal = explain(error, 1)
        assert reason is Reason.CUT
        assert refusal.message == "The backend broke the connection off before it answered."
