"""What is asked of the writing connection, and how much of it goes together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.store.postgres.queries import Query
from gateway.store.rows import Appended


@dataclass(frozen=True, slots=True)
class Statement:
    """One that gives one row.

    Attributes:
        key: Of two with the same one, the first is done first.
        read: Makes the result of the row, or raises what the row says.
        settled: Gives a row, to be read the same way, if it has been done already by us.
    """

    query: Query
    values: tuple[Any, ...]
    key: str
    read: Callable[[Any], Any]
    size: int = 0
    settled: tuple[Query, tuple[Any, ...]] | None = None


@dataclass(slots=True)
class PendingStatement:
    """One of them, and whoever waits for it."""

    work: Appended | Statement
    done: asyncio.Future[Any]
    size: int
    key: str
    kind: str = field(init=False)

    def __post_init__(self) -> None:
        self.kind = self.work.query.text if isinstance(self.work, Statement) else ""

    def answer(self, result: Any) -> None:
        if not self.done.done():  # whoever asked may have gone; it has happened all the same
            self.done.set_result(result)

    def refuse(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def answer_by(self, row: Any) -> None:
        assert isinstance(self.work, Statement)
        try:
            self.answer(self.work.read(row))
        except Exception as error:  # what the row says: nothing was written
            self.refuse(error)


def columns(runs: Sequence[Appended]) -> tuple[list[Any], ...]:
    """The parameters of `append`: one list for each."""
    return (
        [run.id for run in runs],
        [run.epoch for run in runs],
        [run.first_seq for run in runs],
        [run.next_seq for run in runs],
        [run.has_output for run in runs],
        [run.events for run in runs],
    )


def groups_of(batch: list[PendingStatement]) -> list[list[PendingStatement]]:
    """Of one kind each; what is asked for about one job stays in its order."""
    groups: list[list[PendingStatement]] = []
    latest: dict[str, int] = {}  # by key, the last group with it
    for asked in batch:
        earliest = latest.get(asked.key, -1) + 1
        for number in range(earliest, len(groups)):
            if groups[number][0].kind == asked.kind:
                break
        else:
            number = len(groups)
            groups.append([])
        groups[number].append(asked)
        latest[asked.key] = number
    return groups
