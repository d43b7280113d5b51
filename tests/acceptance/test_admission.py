"""Requests that could be read in two ways reach nobody, and nothing of them comes back."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import Gateway, within
from tests.api.probes import PROBES, SMUGGLED, exchange, play, status_of
from tests.api.recorder import recording

QUIET = {"BACKBURNER_UPSTREAM__API": "responses", "BACKBURNER_UPSTREAM__HEALTH_INTERVAL_S": "3600"}
"""No question of the gateway's own to the backend, but for the first look whether it is there."""


def port_of(url: str) -> int:
    return urlsplit(url).port or 0


async def test_the_backend_sees_exactly_the_requests_that_were_accepted(start_gateway: StartGateway) -> None:
    async with recording() as recorder:
        gateway = await start_gateway(upstream=recorder.url, **QUIET)
        problems = [
            problem for probe in PROBES for problem in await play(port_of(gateway.url), recorder, probe)
        ]
    assert not problems, "\n".join(problems)
    assert len(PROBES) >= 57


async def test_nothing_of_a_malformed_head_comes_back_or_is_logged(start_gateway: StartGateway) -> None:
    canary = b"sk-canary-0123456789"
    bad = [
        b"Authorization : Bearer " + canary,
        b"Authorization: Bearer " + canary + b"\x00",
        b"Authorization: Bearer\r\n " + canary,
        b"Authorization: Bearer " + canary + b"\r\nAuthorization: Bearer b",
        b"Authorization: Bearer " + canary + b"\xff",
        canary,
        canary + b"(: a",
        b"Host: " + canary,
        b"Content-Length: " + canary,
        b"Transfer-Encoding: " + canary,
        b"Expect: " + canary,
        b"A: " + canary * 500,
    ]
    async with recording() as recorder:
        gateway = await start_gateway("--log-level", "debug", upstream=recorder.url, **QUIET)
        requests = [b"POST /v1/x HTTP/1.1\r\nHost: g\r\n" + each + b"\r\n\r\n" for each in bad]
        requests += [
            b"GET /v1/x?key=" + canary + b" HTTP/7.7\r\nHost: g\r\n\r\n",
            b"GET http://" + canary + b"/ HTTP/1.1\r\nHost: g\r\n\r\n",
            b"GET /v1/../" + canary + b" HTTP/1.1\r\nHost: g\r\n\r\n",
            canary * 2 + b" /v1/x HTTP/1.1\r\nHost: g\r\n\r\n",
            b"POST /v1/x HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n" + canary + b"\r\n",
        ]
        for raw in requests:
            answer = await exchange(port_of(gateway.url), raw, answers=1)
            assert 400 <= status_of(answer) < 506, (raw, answer)
            assert canary not in answer
            assert b"X-Request-Id" in answer, raw
        assert [seen.line for seen in recorder.requests if b"/models" not in seen.line] == []
        assert await gateway.stop() == 0
        assert canary not in gateway.stderr


async def test_a_trailer_of_one_request_is_no_header_of_the_next(start_gateway: StartGateway) -> None:
    async with recording() as recorder:
        gateway = await start_gateway(upstream=recorder.url, **QUIET)
        recorder.take()
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway.url))
        chunks = b"5\r\nhello\r\n0\r\nA: b\r\nX-Leak: mine\r\n\r\n"
        writer.write(b"POST /v1/x HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        answer = await within(reader.readuntil(b"}"))
        assert status_of(answer) == 200
        writer.write(b"GET /v1/x HTTP/1.1\r\nHost: g\r\n\r\n")
        rest = await within(reader.read())
        writer.close()
        for seen in recorder.take():
            assert b"x-leak" not in seen.names
        assert b"Connection: close" in answer
        assert rest == b""


@pytest.mark.parametrize(
    ("more", "status"),
    [
        (b"Content-Length: 70000000", 413),
        (b"Content-Length: 9\r\nAuthorization: Bearer a\r\napi-key: b", 400),
        (b"Content-Length: 9\r\nTransfer-Encoding: gzip, chunked", 400),
        (b"Content-Length: 9", 100),
    ],
)
async def test_nobody_is_asked_for_a_body_that_will_not_be_taken(
    gateway: Gateway, more: bytes, status: int
) -> None:
    head = b"POST /v1/responses HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\n" + more + b"\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway.url))
    writer.write(head)
    answer = await within(reader.readuntil(b"\r\n\r\n"))
    writer.close()
    assert status_of(answer) == status
    assert status == 100 or b"Connection: close" in answer or b"HTTP/1.0 " in answer


async def test_a_refused_expectation_leaves_nothing_to_be_read_as_a_request(
    start_gateway: StartGateway,
) -> None:
    # The client has its answer, and may send its body all the same, or go on with its next request.
    async with recording() as recorder:
        gateway = await start_gateway(
            upstream=recorder.url,
            **QUIET,
        )
        recorder.take()
        head = b"POST /v1/responses HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway.url))
        writer.write(head + b"Content-Length: 70000000\r\n\r\n")
        answer = await within(reader.readuntil(b"\r\n\r\n"))
        assert status_of(answer) == 413
        assert b"Connection: close" in answer
        writer.write(SMUGGLED)
        await writer.drain()
        await exchange(port_of(gateway.url), b"GET /v1/last HTTP/1.1\r\nHost: g\r\n\r\n", answers=1)
        writer.close()
        assert [seen.line for seen in recorder.take()] == [b"GET /v1/last HTTP/1.1"]
