"""Several gateways on one PostgreSQL in the place of the one that a trial asks for: what is done to the
process is done to all of them, each request goes to one of them by chance, and what they log is one log.

With `REPLICAS=3`, `make torture` plays its trials so.
"""

from __future__ import annotations

import asyncio
import base64
import signal
from pathlib import Path
from typing import Any

from tests.acceptance.spread import Front
from tests.support.member import Member
from tests.torture.gateway import Gateway
from tests.torture.process import NotStarted

_KEYS = f"test:{base64.b64encode(b's' * 32).decode()}\n"
_OF_THE_FILE = (
    "store__database",
    "store__ballast",
    "store__wal",
    "store__check",
    "store__on_",
    "store__found",
)


class _Member(Member, Gateway):
    """One of them."""


class Several(Gateway):
    """All of them.

    Args:
        front: Leads to any of them.
        url: Of their database.
    """

    def __init__(
        self,
        count: int,
        front: Front,
        url: str,
        upstream: str,
        directory: Path,
        without: str | None,
        *flags: str,
        **settings: object,
    ) -> None:
        if own := [name for name in settings if name.startswith(_OF_THE_FILE)]:
            raise NotStarted(f"it is about the file of one gateway: {', '.join(own)}")
        super().__init__(upstream, directory, without, *flags)
        keys = directory / "sealing-keys"
        keys.write_text(_KEYS)
        keys.chmod(0o600)
        shared = {"store__url": url, "credentials__sealing_keys_file": keys}
        self._front = front
        places = [directory / f"replica-{number}" for number in range(count)]
        for place in places:
            place.mkdir()
        self.members = [
            _Member(self, upstream, place, without, *flags, **shared, **settings) for place in places
        ]

    @property
    def processes(self) -> list[Gateway]:
        return [*self.members]

    def set(self, **settings: object) -> None:
        for member in self.members if hasattr(self, "members") else ():
            member.set(**settings)

    def next_start(self, *options: str) -> None:
        for member in self.members:
            member.next_start(*options)

    def heard(self, line: bytes, fields: dict[str, Any]) -> None:
        super().heard(line, fields)
        self.lines.append(fields)
        self._front.addresses = [member.url for member in self.members if member.url]
        self.url, self.admin = self._front.url, self.members[0].admin
        self._news.set()

    async def spawn(self) -> None:
        self.lines = []
        await asyncio.gather(*(member.spawn() for member in self.members))

    async def listening(self) -> None:
        await asyncio.gather(*(member.listening() for member in self.members))

    def send(self, number: signal.Signals) -> None:
        for member in self.members:
            if member.is_running:
                member.send(number)

    async def exit_status(self) -> int:
        return max(await asyncio.gather(*(member.exit_status() for member in self.members)), key=abs)

    @property
    def is_running(self) -> bool:
        return any(member.is_running for member in self.members)

    async def end(self) -> None:
        await super().end()
        for member in self.members:
            await member.end()

    def damage(self) -> str | None:
        return None  # the database goes on, and is looked at by whoever asks it

    def look(self, read: Any) -> Any:
        raise NotStarted("it looks into the file of one gateway")
