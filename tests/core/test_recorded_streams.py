"""Every recorded stream of a real server, as a client of the gateway gets it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from gateway.core.job import Status
from gateway.wire.sse import SseDecoder


def said(body: bytes) -> list[dict[str, Any]]:
    """The backend's own events."""
    return [orjson.loads(frame.data) for frame in SseDecoder(2**20).feed(body)]


def texts(output: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What items say, without ids and decoration."""
    return [
        (item["type"], "".join(part["text"] for part in item.get("content", [])) + item.get("arguments", ""))
        for item in output
    ]


def test_strict_client_accepts_it(
    recorded: bytes, ran: Callable[..., Any], check: Callable[..., None]
) -> None:
    check(ran(recorded).events)


def test_nothing_the_backend_said_is_lost(recorded: bytes, ran: Callable[..., Any]) -> None:
    backends = said(recorded)[-1]["response"]["output"]
    assert sorted(texts(ran(recorded).final["output"])) == sorted(texts(backends))


def test_deltas_pass_in_the_order_and_number_of_the_backend(recorded: bytes, ran: Callable[..., Any]) -> None:
    def deltas(events: list[dict[str, Any]]) -> list[str]:
        return [event["delta"] for event in events if event["type"] == "response.output_text.delta"]

    assert deltas(ran(recorded).events) == deltas(said(recorded))


@pytest.mark.parametrize("size", [1, 7, 64])
def test_socket_reads_of_any_size_store_the_same_bytes(
    recorded: bytes, size: int, ran: Callable[..., Any]
) -> None:
    assert ran(recorded, size).stored == ran(recorded).stored


def test_ids_of_the_backend_are_kept_for_items_and_hidden_for_the_response(
    recorded: bytes, ran: Callable[..., Any]
) -> None:
    played, theirs = ran(recorded), said(recorded)[-1]["response"]
    assert {item["id"] for item in played.final["output"]} == {item["id"] for item in theirs["output"]}
    assert theirs["id"].encode() not in played.stored
    assert played.final["id"] == played.job.id


def test_embedded_status_and_usage_are_those_of_the_backend(recorded: bytes, ran: Callable[..., Any]) -> None:
    played, theirs = ran(recorded), said(recorded)[-1]["response"]
    assert played.outcomes[0].status == Status(theirs["status"])
    for name in ("input_tokens", "output_tokens", "total_tokens"):
        assert played.final["usage"][name] == theirs["usage"][name]
