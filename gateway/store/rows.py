"""Rows of any store's tables into values: their columns have the same names in each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gateway.core.job import Job, Sealed, Status
from gateway.store.port import Page, StoredRequest

_BLANK = b"\n\n"
"""The end of an event, which stands nowhere else in it."""


@dataclass(slots=True)
class Appended:
    """The next events of one run, which are stored together with those of others. Not frozen: see `Page`."""

    id: str
    epoch: int
    first_seq: int
    next_seq: int
    has_output: bool
    events: bytes


def to_job(row: Any) -> Job:
    return Job(
        id=row["id"],
        tenant=row["tenant"],
        status=Status(row["status"]),
        epoch=row["epoch"],
        attempt=row["attempt"],
        next_seq=row["next_seq"],
        created_at_ms=row["created_at_ms"],
        started_at_ms=row["started_at_ms"],
        deadline_ms=row["deadline_ms"],
        is_streamed=bool(row["is_streamed"]),
        is_followable=bool(row["is_followable"]),
        is_rerunnable=bool(row["is_rerunnable"]),
        output_shown=bool(row["output_shown"]),
        backend=row["backend"],
        priority=row["priority"],
        is_background=bool(row["is_background"]),
        has_previous=row["previous"] is not None,
        put_offs=row["put_offs"],
        is_unnamed=row["fingerprint"] is not None,
        response=row["response"],
        final=row["final"],
    )


def to_call(row: Any) -> StoredRequest:
    sealed = None if row["sealed"] is None else Sealed(row["key_id"], row["sealed"])
    return StoredRequest(row["request"], row["input"], row["target"], row["headers"], sealed)


def to_page(rows: Iterable[Any], after: int, bytes_max: int) -> Page | None:
    """The segments after a cursor, each with its job's status, as one page; None if there is no row."""
    events: list[bytes] = []
    size, last_seq = 0, after
    status: str | None = None
    next_seq = 0
    for row in rows:
        status, next_seq = row["status"], row["next_seq"]
        if row["events"] is None:
            break
        piece, last_seq = _piece(row, last_seq, bytes_max, size)
        if not piece:
            break
        events.append(piece)
        size += len(piece)
        if last_seq < row["last_seq"]:
            break
    if status is None:
        return None
    has_more = last_seq < next_seq - 1
    return Page(b"".join(events), last_seq, Status(status).is_terminal and not has_more, has_more)


def _piece(segment: Any, after: int, bytes_max: int, size: int) -> tuple[bytes, int]:
    """What a page takes of a segment, and the number of the last event of that.

    Args:
        bytes_max, size: Of the page, and what it has already.

    Returns:
        All of it after the cursor or, of more than a page holds, as many whole events as fit; one at least on
        an empty page. Events are counted, and not taken apart: small ones cost no more than large ones.
    """
    first_seq, block = segment["first_seq"], segment["events"]
    skipped = max(0, after + 1 - first_seq)
    start = len(block) - len(block.split(_BLANK, skipped)[-1]) if skipped else 0
    room = bytes_max - size
    if len(block) - start <= room:
        return block[start:], segment["last_seq"]
    if size and len(block) <= bytes_max:
        return b"", after  # it is whole on the next page
    end = block.rfind(_BLANK, start, start + max(0, room))
    if end < 0:
        if size:
            return b"", after
        end = block.index(_BLANK, start)
    end += len(_BLANK)
    return block[start:end], first_seq + skipped + block.count(_BLANK, start, end) - 1
