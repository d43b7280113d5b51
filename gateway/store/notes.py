"""Notes: small things besides jobs that hold for all gateways of a store, and longer than a process lives."""

from __future__ import annotations

from typing import Any, Protocol


class Notes(Protocol):
    """JSON values by kind and name. Any call may raise `StoreUnavailable`; a write may have happened then."""

    async def all(self, kind: str) -> dict[str, Any]:
        """Those of a kind, by name."""

    async def put(self, kind: str, name: str, said: Any) -> None:
        """Write one, or write it anew."""

    async def take(self, kind: str, name: str) -> Any:
        """Remove one, and return it: of several who take it at once one gets it. None: it is not there."""

    async def drop_before(self, kind: str, name: str) -> None:
        """Remove those of a kind whose name comes before this one."""


def key(kind: str, name: str = "") -> str:
    """Where a note stands among the other facts of a store."""
    return f"note:{kind}:{name}"


def end_of(kind: str) -> str:
    """After every key of a kind, and before all that follow: ':' comes right before ';'."""
    return f"note:{kind};"
