"""Ids of responses, as people give them: whole, or so much of the beginning that it means one."""

from __future__ import annotations

from gateway.command.admin import Admin, look
from gateway.command.status import NotDone

_LOOKS_MAX = 50
"""Each goes through 10,000 jobs at most."""
_SHOWN = 5
_WHOLE_CHARS = len("resp_") + 48
_SHORT_CHARS = len("resp_") + 12


def short(response_id: str) -> str:
    """Enough of an id to mean one, for a terminal."""
    return response_id[:_SHORT_CHARS]


def whole(admin: Admin, beginning: str) -> str:
    """The id that begins so. Raises: NotDone, if none does, or several."""
    if len(beginning) >= _WHOLE_CHARS:
        return beginning
    found = beginning_with(admin, beginning, limit=_SHOWN + 1)
    if beginning in found:
        return beginning
    match found:
        case [one]:
            return one
        case []:
            raise NotDone(f"there is no response whose id begins with {beginning}")
    more = " and more" if len(found) > _SHOWN else ""
    raise NotDone(f"{beginning} is the beginning of several: {', '.join(found[:_SHOWN])}{more}")


def beginning_with(admin: Admin, beginning: str, *, limit: int) -> list[str]:
    """Ids that begin so, the newest first; not all, if there are very many jobs. Raises: NotDone."""
    found: list[str] = []
    cursor = None
    for _ in range(_LOOKS_MAX):
        page = look(admin, "jobs", {"id": beginning, "limit": limit, "cursor": cursor})
        found += [job["id"] for job in page["jobs"]]
        cursor = page["next"]
        if cursor is None or len(found) >= limit:
            break
    return found[:limit]
