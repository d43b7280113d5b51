"""The benchmarks' model server speaks HTTP, and sends what a real one sends."""

from __future__ import annotations

import http.client
import json
import socket
import time

import pytest

from benchmarks.lab import Upstream


def asked(
    upstream: Upstream, method: str, path: str, body: bytes | list[bytes] | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=10)
    try:
        connection.request(method, path, iter(body) if isinstance(body, list) else body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def streamed(upstream: Upstream, path: str, model: str) -> list[bytes]:
    body = json.dumps({"model": model, "stream": True}).encode()
    status, text = asked(upstream, "POST", path, body)
    assert status == 200
    frames = text.split(b"\n\n")
    assert frames.pop() == b""
    return frames


def event(frame: bytes) -> dict[str, object]:
    found: dict[str, object] = json.loads(frame.partition(b"data: ")[2])
    return found


def test_a_get_is_answered_with_json(upstream: Upstream) -> None:
    status, text = asked(upstream, "GET", "/v1/models")
    assert status == 200
    assert json.loads(text)["data"][0]["id"] == "m"


def test_a_response_that_it_does_not_have_is_404(upstream: Upstream) -> None:
    assert asked(upstream, "GET", "/v1/responses/resp_1")[0] == 404


def test_uploads_are_read_to_their_ends_however_they_are_framed(upstream: Upstream) -> None:
    assert asked(upstream, "POST", "/v1/files", b"x" * 1_000_000)[0] == 200
    assert asked(upstream, "POST", "/v1/files", [b"x" * 65_536] * 16)[0] == 200
    assert upstream.counts()["uploads"] == 2


def test_a_stream_of_responses_events_is_numbered_and_whole(upstream: Upstream) -> None:
    frames = streamed(upstream, "/v1/responses", "n25r0")
    events = [event(frame) for frame in frames]
    assert [found["sequence_number"] for found in events] == list(range(len(events)))
    deltas = [str(found["delta"]) for found in events if found["type"] == "response.output_text.delta"]
    assert len(deltas) == 25
    assert deltas == sorted(set(deltas)), "stamps rise"
    done = next(found for found in events if found["type"] == "response.output_text.done")
    assert done["text"] == "".join(deltas)
    assert events[-1]["type"] == "response.completed"
    assert all(
        frame.startswith(f"event: {found['type']}\n".encode())
        for frame, found in zip(frames, events, strict=True)
    )


def test_a_stream_of_chat_chunks_ends_with_done(upstream: Upstream) -> None:
    *frames, done = streamed(upstream, "/v1/chat/completions", "n3r200")
    assert done == b"data: [DONE]"
    assert len(frames) == 1 + 3 + 1


def test_a_model_that_says_no_number_is_refused(upstream: Upstream) -> None:
    assert asked(upstream, "POST", "/v1/responses", b'{"model":"gpt","stream":true}')[0] == 400


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/models HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"POST /v1/files HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/files HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST /v1/files HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost : bench\r\n\r\n",
        b"Good day, how are you?\r\n\r\n",
    ],
)
def test_what_is_not_http_is_hung_up_on(upstream: Upstream, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", upstream.port), timeout=10) as peer:
        peer.sendall(head)
        assert peer.recv(100) == b""


def test_it_says_when_the_client_of_a_tagged_stream_has_left(upstream: Upstream) -> None:
    body = b'{"model":"n1000r10i42","stream":true}'
    with socket.create_connection(("127.0.0.1", upstream.port), timeout=10) as peer:
        peer.sendall(b"POST /v1/responses HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        assert peer.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
        before = time.monotonic_ns() // 1000
    upstream.until_idle(10)
    assert upstream.closed()[42] >= before
    assert upstream.counts()["left"] == 1
