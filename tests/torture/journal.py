"""What clients were told, on disk before they act on it: the memory against which every later answer is held.

An entry is one line of JSON. Entries of all clients that wait at one moment share one fsync, as in the store
that they check. `stories` reads the file back: one `Story` for each response that was accepted.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tests.acceptance.harness import payload

TERMINAL = frozenset({"completed", "failed", "incomplete", "cancelled"})


class Journal:
    """The file. An async context: what was noted is on disk when it is left."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._waiting: list[bytes] = []
        self._written = asyncio.Event()
        self._bell = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Journal:
        self._task = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        os.close(self._file)

    async def note(self, kind: str, **fields: Any) -> None:
        """Add an entry; it is on disk when this returns."""
        self._waiting.append(orjson.dumps({"at": time.monotonic(), "kind": kind, **fields}) + b"\n")
        written = self._written
        self._bell.set()
        await written.wait()

    async def _write(self) -> None:
        while True:
            await self._bell.wait()
            self._bell.clear()
            batch, self._waiting = self._waiting, []
            written, self._written = self._written, asyncio.Event()
            await asyncio.to_thread(self._sync, b"".join(batch))
            written.set()

    def _sync(self, entries: bytes) -> None:
        os.write(self._file, entries)
        os.fdatasync(self._file)


@dataclass(slots=True)
class Story:
    """All that clients know of one response.

    Attributes:
        deltas: Pieces of text that its answer has when it is whole.
        seen: Events by sequence number, as they came.
        final: The body of a poll that showed it ended.
        cancelled: The body of a cancel that was answered 200.
        sealed: Its whole log, read after its cancel was answered.
        is_delete_asked: It may be gone; `is_deleted`: it must be.
        first_output_at: When the first event of its output came; `ended_at`: when its end was seen.
        wrongs: What clients saw that can never be right.
    """

    id: str
    tag: str
    is_streamed: bool
    deltas: int
    accepted_at: float
    seen: dict[int, bytes] = field(default_factory=dict)
    final: bytes | None = None
    cancelled: bytes | None = None
    sealed: bytes | None = None
    is_delete_asked: bool = False
    is_deleted: bool = False
    first_output_at: float | None = None
    ended_at: float | None = None
    wrongs: list[str] = field(default_factory=list)
    _rank: int = 0

    def has_seen(self, event: bytes, at: float) -> None:
        content = payload(event)
        number, kind = content["sequence_number"], content["type"]
        if self.seen.setdefault(number, event) != event:
            self.wrongs.append(f"event {number} came in two versions")
        if kind.removeprefix("response.") in TERMINAL:
            self.ended_at = self.ended_at or at
        elif number > 2 and self.first_output_at is None:
            self.first_output_at = at

    def had_status(self, status: str, at: float) -> None:
        rank = {"queued": 0, "in_progress": 1}.get(status, 2)
        if rank < self._rank:
            self.wrongs.append(f"its status went back to {status}")
        self._rank = rank
        if rank == 2:
            self.ended_at = self.ended_at or at


@dataclass(slots=True)
class Told:
    """Everything that is in a journal.

    Attributes:
        asked: Tags of creates that were sent.
        refused: Tags whose create was answered with an error, and its status.
    """

    stories: dict[str, Story] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    refused: dict[str, int] = field(default_factory=dict)

    @property
    def unanswered(self) -> set[str]:
        """Tags of creates that were never answered: they may have become jobs or not."""
        return self.asked - set(self.refused) - {story.tag for story in self.stories.values()}


def read(path: Path) -> Told:
    """A journal, as it is on disk."""
    told = Told()
    for line in path.read_bytes().splitlines():
        entry = orjson.loads(line)
        match entry["kind"]:
            case "asked":
                told.asked.add(entry["tag"])
            case "refused":
                told.refused[entry["tag"]] = entry["status"]
            case "accepted":
                told.stories.setdefault(
                    entry["id"],
                    Story(entry["id"], entry["tag"], entry["streamed"], entry["deltas"], entry["at"]),
                )
            case kind:
                _tell(told.stories[entry["id"]], kind, entry)
    return told


def _tell(story: Story, kind: str, entry: dict[str, Any]) -> None:
    at = entry["at"]
    match kind:
        case "events":
            for event in entry["events"]:
                story.has_seen(event.encode(), at)
        case "status":
            story.had_status(entry["status"], at)
        case "final":
            body = entry["body"].encode()
            story.had_status(orjson.loads(body)["status"], at)
            if story.final is not None and story.final != body:
                story.wrongs.append("two polls after its end differ")
            story.final = body
        case "cancelled":
            body = entry["body"].encode()
            if story.cancelled is not None and story.cancelled != body:
                story.wrongs.append("two cancels were answered differently")
            story.cancelled = body
            story.had_status("cancelled", at)
        case "sealed":
            story.sealed = entry["log"].encode()
        case "delete_asked":
            story.is_delete_asked = True
        case "deleted":
            story.is_delete_asked = story.is_deleted = True
        case "wrong":
            story.wrongs.append(entry["what"])
        case _:
            raise ValueError(kind)
