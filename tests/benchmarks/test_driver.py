"""The benchmarks' driver counts what a server has really answered, and gives no figure for anything else."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.lab import Upstream
from benchmarks.load import BadAnswers, Driver, post, request

GET = request("GET", "/v1/models")


@contextmanager
def answering(*pieces: bytes) -> Iterator[int]:
    """The port of a server that sends these pieces, one by one, as its answer to whatever is asked."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if peer.recv(65_536):
                    for piece in pieces:
                        peer.sendall(piece)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_it_counts_each_answer_once(driver: Driver, upstream: Upstream) -> None:
    seen = driver.load(upstream.port, GET, connections=4, seconds=5, warm=0, count=500)
    assert seen.all_answers == seen.answers == seen.latency_us.count == 500
    assert upstream.counts()["requests"] == 501, "and the one that asks for the counts"


def test_at_a_rate_it_asks_so_often(driver: Driver, upstream: Upstream) -> None:
    seen = driver.load(upstream.port, GET, connections=8, seconds=5, warm=0, count=50, rate=500)
    assert seen.all_answers == 50
    assert seen.seconds >= 49 / 500


def test_it_uploads_a_body_that_is_larger_than_any_buffer(driver: Driver, upstream: Upstream) -> None:
    upload = request("POST", "/v1/files", b"x" * 1_000_000)
    driver.load(upstream.port, upload, connections=2, seconds=5, warm=0, count=6)
    assert upstream.counts()["uploads"] == 6


def test_a_delta_counts_once_although_the_last_events_repeat_its_stamp(
    driver: Driver, upstream: Upstream
) -> None:
    asked = post("/v1/responses", model="n20r200", stream=True)
    seen = driver.stream(upstream.port, asked, connections=5, seconds=10)
    assert (seen.all_deltas, seen.whole, seen.first_us.count) == (100, 5, 5)
    assert seen.delay_us.count == 100


def test_it_reads_the_cpu_time_of_processes(driver: Driver, upstream: Upstream) -> None:
    seen = driver.load(upstream.port, GET, connections=1, seconds=5, warm=0, count=10, cpu=[os.getpid()])
    assert seen.cpu_us >= 0


def test_stamps_and_ids_are_found_wherever_an_answer_is_cut(driver: Driver) -> None:
    text = b'data: {"id":"resp_1","delta":" @0000000000000005"}\n\ndata: {"delta":" @0000000000000009"}\n\n'
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(text), text)
    with answering(*(answer[at : at + 1] for at in range(len(answer)))) as port:
        seen = driver.stream(port, GET, connections=1, followers=3, seconds=10)
    assert (seen.whole, seen.all_deltas) == (3, 6)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"",
    ],
)
def test_no_figure_comes_of_bad_answers(driver: Driver, answer: bytes) -> None:
    with answering(answer) as port:
        with pytest.raises(BadAnswers):
            driver.load(port, GET, connections=1, seconds=0.3, warm=0)
        with pytest.raises(BadAnswers):
            driver.stream(port, GET, connections=1, seconds=5)
