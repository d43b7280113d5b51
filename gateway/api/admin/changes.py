"""What can be changed by the admin API: each change by its path, with what the log is told of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict
from typing import Any

from gateway.api.admin.filters import NAMES, wanted
from gateway.engine.actions import Actions
from gateway.engine.bulk import Many, Plan, StoppedHalfway
from gateway.engine.receivers import WebhookReceivers
from gateway.wire.errors import Fault, Refusal, invalid

_SLOTS_MAX = 1_000_000

Done = tuple[dict[str, Any] | Refusal, dict[str, Any] | None]
"""The answer, and what the audit line says; None: nothing was changed. A refusal: it was done in part."""


class Changes:
    """All of them.

    Args:
        leave: Ends the process in good order, as SIGTERM does.
    """

    def __init__(
        self,
        actions: Actions,
        outgoing: WebhookReceivers,
        now_ms: Callable[[], int],
        leave: Callable[[], None],
    ) -> None:
        self._actions = actions
        self._outgoing = outgoing
        self._now_ms = now_ms
        self._leave = leave

    def of(
        self, parts: list[str], said: dict[str, Any], request_id: str, peer: str | None
    ) -> Callable[[], Awaitable[Done]]:
        """The one that a path means, to be made. Raises: Refusal, if there is none."""
        match parts:
            case ["jobs", "cancel" | "rerun" | "delete" | "tier" as what]:
                return lambda: self._many(Many(what), said, request_id)
            case ["jobs", response_id, "cancel"]:
                return lambda: self._cancel(response_id)
            case ["jobs", response_id, "delete"]:
                return lambda: self._delete(response_id)
            case ["jobs", response_id, "tier"]:
                return lambda: self._move(response_id, said)
            case ["jobs", response_id, "rerun"]:
                return lambda: self._rerun(response_id, request_id)
            case ["jobs", response_id, "resend"]:
                return lambda: self._resend(response_id)
            case ["backends", name, "pause" | "resume" as what]:
                return lambda: self._pause(name, what, peer)
            case ["backends", name, "slots"]:
                return lambda: self._resize(name, said, peer)
            case ["webhooks", name, "enable"]:
                return lambda: self._enable(name)
            case ["drain"]:
                return self._drain
        raise no_such_page()

    async def _cancel(self, response_id: str) -> Done:
        is_cancelled = await self._actions.cancel(response_id)
        audit = {"doing": "cancel", "response_id": response_id, "count": int(is_cancelled)}
        return {"cancelled": is_cancelled}, audit

    async def _delete(self, response_id: str) -> Done:
        await self._actions.delete(response_id)
        return {"deleted": True}, {"doing": "delete", "response_id": response_id}

    async def _move(self, response_id: str, said: dict[str, Any]) -> Done:
        match said:
            case {"tier": str(tier)} if len(said) == 1:
                is_moved = await self._actions.move(response_id, tier)
                audit = {"doing": "tier", "response_id": response_id, "tier": tier, "count": int(is_moved)}
                return {"moved": is_moved}, audit
        raise invalid('must be {"tier": NAME}.', param="tier")

    async def _many(self, doing: Many, said: dict[str, Any], request_id: str) -> Done:
        tier = said.get("tier")
        asked = {name: each for name, each in said.items() if name != "tier" or doing is not Many.TIER}
        match asked:
            case {"token": str(token)} if len(said) == 1:
                return await self._confirmed(await self._actions.bulk.confirmed(token, doing), request_id)
            case {"dry_run": True, "ids": list(ids)} if len(asked) == 2 and _is_texts(ids):
                return asdict(await self._actions.bulk.preview(doing, ids, said="ids", tier=tier)), None
            case {"dry_run": True, "filter": dict(given)} if len(asked) == 2 and _is_texts(given.values()):
                which, said_so = wanted(given, self._now_ms()), _in_words(given)
                return asdict(await self._actions.bulk.preview(doing, which, said=said_so, tier=tier)), None
        names = ", ".join(NAMES)
        also = ', with a "tier"' if doing is Many.TIER else ""
        raise invalid(
            'must be {"dry_run": true, "ids": […]} or {"dry_run": true, "filter": {…}} with some of '
            f'{names}{also}, and then {{"token": …}} to confirm what that has shown.'
        )

    async def _confirmed(self, plan: Plan, request_id: str) -> Done:
        audit: dict[str, Any] = {"doing": f"{plan.doing} many", "chosen": plan.said, "tier": plan.tier}
        try:
            result, count = await self._planned(plan, request_id)
        except StoppedHalfway as stopped:
            return stopped, {**audit, "count": stopped.count}
        return result, {**audit, "count": count}

    async def _planned(self, plan: Plan, request_id: str) -> tuple[dict[str, Any], int]:
        """Do it: the answer, and to how many it was done. Raises: StoppedHalfway."""
        match plan.doing:
            case Many.CANCEL:
                ended = await self._actions.bulk.cancel(plan)
                return asdict(ended), ended.cancelled
            case Many.RERUN:
                made = await self._actions.bulk.rerun(plan, request_id=request_id)
                return asdict(made), made.rerun
            case Many.DELETE:
                gone = await self._actions.bulk.delete(plan)
                return asdict(gone), gone.deleted
            case Many.TIER:
                moved = await self._actions.bulk.move(plan)
                return asdict(moved), moved.moved

    async def _rerun(self, response_id: str, request_id: str) -> Done:
        new_id = await self._actions.rerun(response_id, request_id=request_id)
        return {"id": new_id}, {"doing": "rerun", "response_id": response_id}

    async def _resend(self, response_id: str) -> Done:
        count, disabled = await self._outgoing.retry(response_id, also_taken=True)
        if not count and not disabled:
            raise Refusal(Fault.NOT_FOUND, "Nobody is to be told of this response.", code="nobody_to_tell")
        audit = {"doing": "resend", "response_id": response_id, "count": count}
        return {"sent_again": count, "disabled": disabled}, audit

    async def _pause(self, name: str, what: str, peer: str | None) -> Done:
        await (self._actions.pause(name, by=peer) if what == "pause" else self._actions.resume(name))
        return {"backend": name, "paused": what == "pause"}, {"doing": what, "backend": name}

    async def _resize(self, name: str, said: dict[str, Any], peer: str | None) -> Done:
        slots = said.get("slots")
        is_number = isinstance(slots, int) and not isinstance(slots, bool) and 1 <= slots <= _SLOTS_MAX
        if said.keys() != {"slots"} or not (slots is None or is_number):
            raise invalid(
                f'must be {{"slots": N}}, from 1 to {_SLOTS_MAX} per replica, or null for those of the '
                "settings.",
                param="slots",
            )
        await self._actions.resize(name, slots, by=peer)
        return {"backend": name, "slots": slots}, {"doing": "slots", "backend": name, "limit": slots}

    async def _enable(self, name: str) -> Done:
        if not await self._outgoing.enable(name):
            raise Refusal(Fault.NOT_FOUND, "No endpoint of this name.", code="not_found")
        return {"enabled": name}, {"doing": "enable", "endpoint": name}

    async def _drain(self) -> Done:
        self._leave()
        return {"draining": True}, {"doing": "drain"}


def _is_texts(given: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in given)


def _in_words(given: dict[str, str]) -> str:
    """A filter, for the audit line."""
    return " ".join(f"{name}={given[name].strip()}" for name in NAMES if given.get(name, "").strip()) or "all"


def no_such_page() -> Refusal:
    """For a path that is none of the admin API's."""
    return Refusal(Fault.NOT_FOUND, "There is nothing here in the admin API.", code="not_found")
