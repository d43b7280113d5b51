"""A run whose texts lie on a shelf comes to the same, byte for byte."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from gateway.core import transcript as transcript_module
from gateway.core.machine import Started
from gateway.core.transcript import CancelRequested, Transcript
from gateway.core.upstream import UpstreamClosed, UpstreamFrames
from gateway.wire.answers import text
from gateway.wire.sse import SseDecoder


class Shelf:
    """Takes everything."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def put(self, text: str) -> Callable[[], str]:
        self.texts.append(text)
        return lambda: text


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every text were long."""
    monkeypatch.setattr(transcript_module, "_LOOSE_BYTES_MAX", 1)
    monkeypatch.setattr(text, "SHELVED_CHARS_MIN", 1)


def shelving(played: Any, shelf: Shelf) -> Any:
    job = played.job
    return dataclasses.replace(played, machine=Transcript(job, events_bytes_max=2**24, shelf=shelf))


@pytest.mark.parametrize("last", [UpstreamClosed(), CancelRequested()], ids=["closed", "cancelled"])
def test_the_events_and_the_response_are_the_same(
    recorded: bytes, begin: Callable[..., Any], heard: Callable[..., Any], last: Any
) -> None:
    inputs = [item for item in heard(recorded, 100) if isinstance(item, UpstreamFrames)]
    if isinstance(last, CancelRequested):
        inputs = inputs[: len(inputs) * 2 // 3]
    plain, shelf = begin(), Shelf()
    shelved = shelving(begin(), shelf)
    for played in (plain, shelved):
        played.receive(Started(), *inputs, last)
    assert shelved.stored == plain.stored
    assert shelved.final == plain.final
    again = Transcript.restored(plain.job, plain.stored, events_bytes_max=2**24, shelf=Shelf())
    assert again.output() == Transcript.restored(plain.job, plain.stored, events_bytes_max=2**24).output()


def test_a_long_text_is_on_the_shelf_and_not_in_memory(
    begin: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcript_module, "_LOOSE_BYTES_MAX", 2**16)
    monkeypatch.setattr(text, "SHELVED_CHARS_MIN", 2**14)
    shelf = Shelf()
    played = shelving(begin(), shelf)
    played.receive(Started())
    place = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0}
    for size in (10, 100, 5000):
        event = orjson.dumps({**place, "delta": "x" * size})
        pieces = UpstreamFrames(SseDecoder(2**20).feed(b"data: %b\n\n" % event * 100))
        while sum(map(len, shelf.texts)) < 2**18:
            played.receive(pieces)
            assert played.machine.held_bytes < 2**20
        shelf.texts.clear()
