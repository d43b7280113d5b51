"""A real gateway process on a file of its own, to be ended in every way and started again."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.acceptance.harness import KEY
from tests.acceptance.harness import Gateway as Process

HEADERS = {"Authorization": f"Bearer {KEY}"}

_PATIENT = {
    "UPSTREAM__API": "responses",
    "STORE__SWEEP_INTERVAL_S": 1,
    "BACKGROUND__RETENTION_S": 3600,
}
"""No question to the model server, frequent sweeps, and nothing expires while a trial looks at it."""

_TAIL_BYTES = 16 * 2**10
"""Of the log, for a message about a process that did not start; the whole of it is in a file."""


class Gateway(Process):
    """One `backburner serve` after the other on one database.

    Attributes:
        ready_at: On the monotonic clock: when the present process began to answer.
        place: The directory of its log, and of copies of its file.
        defects: What any of the processes logged that no process should.
    """

    may_be_forked = False  # how long a start takes is one of the figures

    def __init__(
        self, upstream: str, directory: Path, without: str | None, *flags: str, **settings: object
    ) -> None:
        named = {**_PATIENT, **{name.upper(): value for name, value in settings.items()}}
        super().__init__(upstream, directory / "gateway.db", *flags)
        self.set(**named)
        self.ready_at = 0.0
        self.defects: list[str] = []
        self.guarded = ("--without", without) if without else ()
        self._next_start: tuple[str, ...] = ()
        self.place = directory
        self._log = (directory / "gateway.log").open("ab", buffering=0)

    @property
    def processes(self) -> list[Gateway]:
        """Those that it is: itself, or several."""
        return [self]

    def set(self, **settings: object) -> None:
        """Settings of the next processes."""
        self._environ |= {f"BACKBURNER_{name.upper()}": str(value) for name, value in settings.items()}

    def next_start(self, *options: str) -> None:
        """Options of `tests.torture.launch` for the next process only."""
        self._next_start = options

    def command(self) -> list[str]:
        options, self._next_start = (*self.guarded, *self._next_start), ()
        if not options:
            return super().command()
        return ["tests.torture.launch", *options, "--"]

    def heard(self, line: bytes, fields: dict[str, Any]) -> None:
        self._log.write(line)
        self.stderr = (self.stderr + line)[-_TAIL_BYTES:]
        if (
            fields["event"] == "listening"
        ):  # also if nobody waits for it: the clients want to know the address
            self.url, self.admin, self.ready_at = fields["url"], fields["admin"], time.monotonic()
        if fields["event"] in ("defect", "task_died") or b"Traceback" in line:
            self.defects.append(str(fields.get("trace", fields["event"]))[-600:])

    async def end(self) -> None:
        """Whatever it is doing: the trial is over."""
        await self.leave()
        if self.is_running:
            await self.kill9()
        self._log.close()

    def damage(self) -> str | None:
        """What SQLite finds wrong with the file; None if nothing. Call it while no process has the file.

        Looked at in a copy: opening the file itself would recover it, and hide from the next start what
        the last end has left.
        """
        with self._copy() as raw:
            found = raw.execute("PRAGMA quick_check").fetchall()
        return None if found == [("ok",)] else str(found)

    def look(self, read: Callable[[sqlite3.Connection], Any]) -> Any:
        """Something out of the file, while no process has it."""
        with self._copy() as raw:
            return read(raw)

    def _copy(self) -> _Copy:
        # File and log are copied one after the other: of a living process they would not fit together.
        assert not self.is_running
        return _Copy(self.database, self.place)


class _Copy:
    def __init__(self, database: Path, place: Path) -> None:
        self._directory = place / "copy"
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(mode=0o700)
        for name in (database.name, f"{database.name}-wal"):
            if (database.parent / name).exists():
                shutil.copy(database.parent / name, self._directory / name)
        self._raw = sqlite3.connect(self._directory / database.name)

    def __enter__(self) -> sqlite3.Connection:
        return self._raw

    def __exit__(self, *_: object) -> None:
        self._raw.close()
        shutil.rmtree(self._directory, ignore_errors=True)
