"""The callers' credentials and private headers, for as long as their jobs need them: in memory only."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.core.call import Credential


@dataclass(frozen=True, slots=True)
class CallerHeaders:
    """What goes with a call but not to disk.

    Attributes:
        others: Headers that nothing is known about: a key may stand in any of them.
    """

    credential: Credential | None
    others: dict[str, str] = field(repr=False)


class Credentials:
    """Held from acceptance to the end of the job."""

    def __init__(self) -> None:
        self._held: dict[str, CallerHeaders] = {}

    def keep(self, response_id: str, headers: CallerHeaders) -> None:
        self._held[response_id] = headers

    def of(self, response_id: str) -> CallerHeaders | None:
        """None after a restart: what was held died with the process."""
        return self._held.get(response_id)

    def forget(self, response_id: str) -> None:
        self._held.pop(response_id, None)
