"""Heads as they stand on the wire, and how answers end."""

from __future__ import annotations

import pytest

from gateway.wire.http.head import Head, Headers
from gateway.wire.http.messages import framed, phrase, serialised, sized

LENGTH = ("content-length", "5")


@pytest.mark.parametrize(
    ("method", "status", "headers", "sent", "is_chunked"),
    [
        ("GET", 200, [LENGTH], [LENGTH], False),
        ("GET", 200, [], [("Transfer-Encoding", "chunked")], True),
        ("HEAD", 200, [], [], False),
        ("HEAD", 200, [LENGTH], [LENGTH], False),
        ("GET", 204, [LENGTH], [], False),
        ("GET", 304, [LENGTH, ("ETag", "x")], [("ETag", "x")], False),
        ("POST", 500, [("A", "b")], [("A", "b"), ("Transfer-Encoding", "chunked")], True),
    ],
)
def test_an_answer_shows_where_it_ends(
    method: str,
    status: int,
    headers: list[tuple[str, str]],
    sent: list[tuple[str, str]],
    is_chunked: bool,
) -> None:
    assert framed(method, status, headers) == (sent, is_chunked)


def test_a_request_without_a_body_says_so_where_it_might_have_one() -> None:
    nothing = [("Content-Length", "0")]
    for method, added in (("GET", []), ("HEAD", []), ("POST", nothing), ("DELETE", nothing)):
        head = Head(method, "/v1/x", (1, 1), Headers([("Host", "g")]))
        assert sized(head, []) == added
    assert sized(Head("POST", "/", (1, 1), Headers([LENGTH]), has_body=True), [LENGTH]) == [LENGTH]


def test_a_head_is_lines_without_the_one_that_ends_it() -> None:
    assert (
        serialised("GET / HTTP/1.1", [("A", "b"), ("C", "ü")])
        == "GET / HTTP/1.1\r\nA: b\r\nC: ü\r\n".encode()
    )


def test_a_status_has_its_phrase_if_it_is_known() -> None:
    assert (phrase(404), phrase(599)) == ("Not Found", "")
    assert (phrase(404, "Nowhere"), phrase(404, "")) == ("Nowhere", "")
    assert phrase(404, "No\r\nX: 1") == "Not Found", "what cannot be sent on is not said"
