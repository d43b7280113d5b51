"""Large outputs: where they lie, who waits for whom, and that all of them come to their ends."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.core import transcript
from gateway.core.upstream import UpstreamFrames
from gateway.engine.outputs import Outputs
from gateway.engine.shelf import FileShelf
from gateway.wire.answers import text
from gateway.wire.sse import SseDecoder
from tests.support.house import Build, Hold, frames

PIECE = "x" * 20_000


def said(event: dict[str, Any]) -> UpstreamFrames:
    return UpstreamFrames(SseDecoder(2**20).feed(b"data: %b\n\n" % orjson.dumps(event)))


DELTA = said({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": PIECE})
END = said({"type": "response.completed", "response": {"status": "completed", "output": []}})


def has_nameless_file(directory: Path) -> bool:
    """Whether this process has a file open there that has no name (any more)."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one by which they are listed
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return any(name.startswith(f"{directory}/") and name.endswith("(deleted)") for name in found)


# -- the shelf


def test_a_shelf_gives_back_what_was_put_on_it_and_has_no_name(tmp_path: Path) -> None:
    shelf = FileShelf(tmp_path)
    texts = ["one", "", "猫🦦" * 1000, "\n\0"]
    read = [shelf.put(text) for text in texts]
    assert [each() for each in read if each is not None] == texts
    assert list(tmp_path.iterdir()) == []
    shelf.close()


def test_a_shelf_that_cannot_be_made_takes_nothing(tmp_path: Path) -> None:
    shelf = FileShelf(tmp_path / "gone")
    assert shelf.put("text") is None
    shelf.close()


# -- who waits


async def waits(outputs: Outputs, name: str) -> bool:
    waiting = asyncio.create_task(outputs.room(name))
    await asyncio.sleep(0)
    is_waiting = not waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])
    return is_waiting


async def test_over_the_limit_all_wait_but_the_largest_and_the_small(tmp_path: Path) -> None:
    outputs = Outputs(100, tmp_path)
    for name, size in (("small", 10), ("middle", 30), ("large", 60)):
        outputs.holds(name, size)
    assert [await waits(outputs, name) for name in ("small", "middle", "large")] == [False] * 3
    outputs.holds("large", 61)
    assert [await waits(outputs, name) for name in ("small", "middle", "large")] == [False, True, False]
    assert (outputs.total, outputs.paused) == (101, 0)


async def test_who_waits_goes_on_when_others_have_ended(tmp_path: Path) -> None:
    outputs = Outputs(100, tmp_path)
    for name in ("first", "second", "third"):
        outputs.holds(name, 50)
    second, third = (asyncio.create_task(outputs.room(name)) for name in ("second", "third"))
    await asyncio.sleep(0)
    assert outputs.paused == 2
    outputs.drops("first")
    async with asyncio.timeout(10):
        await asyncio.gather(second, third)
    assert (outputs.total, outputs.paused) == (100, 0)


async def test_large_ones_are_read_one_at_a_time_and_small_ones_at_once(tmp_path: Path) -> None:
    outputs = Outputs(100, tmp_path)
    async with outputs.reading(2**30):
        async with outputs.reading(1):
            pass
        second = asyncio.create_task(outputs.reading(2**30).__aenter__())
        await asyncio.sleep(0)
        assert not second.done()
    async with asyncio.timeout(10):
        await second


# -- runs


async def test_many_large_responses_end_whole_though_hardly_one_has_room(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "SHELVED_CHARS_MIN", 2**40)  # all of it stays in memory
    house = await build(background={"output_total_bytes_max": 100_000})
    house.backend.script = [frames(0, 4), *[DELTA] * 20, END]
    ids = [await house.submit() for _ in range(6)]
    for response_id in ids:
        response = await house.ended(response_id)
        assert response["output"][0]["content"][0]["text"] == PIECE * 20
    assert house.engine._endings.outputs.total == 0


@pytest.mark.parametrize("way", ["closed", "cancelled"])
async def test_a_long_text_lies_in_a_file_without_a_name_and_comes_back_whole(
    build: Build, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(transcript, "_LOOSE_BYTES_MAX", 2**15)
    monkeypatch.setattr(text, "SHELVED_CHARS_MIN", 2**14)
    house = await build()
    hold = Hold()
    house.backend.script = [frames(0, 4), *[DELTA] * 50, hold, END]
    response_id = await house.submit()
    await hold.here()
    directory = house.settings.store.database.parent
    assert has_nameless_file(directory)
    assert house.engine._endings.outputs.total < 10 * len(PIECE)
    if way == "cancelled":
        response = await house.cancel(response_id)
    else:
        hold.go.set()
        response = await house.ended(response_id)
    assert response["output"][0]["content"][0]["text"] == PIECE * 50
    await house.kill()
    assert not has_nameless_file(directory)
