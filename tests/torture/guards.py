"""The guards of the gateway, and how each is taken away in its own process: see `launch`."""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from gateway.api.identity.callers import Caller, Callers
from gateway.engine import joblog, jobs
from gateway.engine.joblog import JobLog
from gateway.outbound import guard
from gateway.outbound.backend import HttpBackend
from gateway.outbound.redactor import Redactor
from gateway.store.sqlite import file, schema
from gateway.store.sqlite.queries import QUERIES


def replace(owner: Any, name: str, value: Any) -> None:
    """Put something else in the place of a function or a module's name."""
    assert hasattr(owner, name), f"{owner} has no {name} any more: the guard would stay"
    setattr(owner, name, value)


@dataclass(frozen=True, slots=True)
class Guard:
    """`what` it is, and `remove`, which takes it out of this process."""

    what: str
    remove: Callable[[], None]


def _rewrite(pattern: str, *names: str) -> Callable[[], None]:
    def remove() -> None:
        for name in names or tuple(QUERIES):
            QUERIES[name] = re.sub(pattern, "", QUERIES[name])

    return remove


def _without_shield() -> None:
    replace(jobs, "asyncio", _instead(asyncio, shield=lambda awaitable: awaitable))


def _without_flock() -> None:
    replace(file, "fcntl", _instead(fcntl, flock=lambda descriptor, operation: None))


def _without_trigger(name: str) -> Callable[[], None]:
    pattern = rf"CREATE TRIGGER {name} .*?\nEND;"
    less = re.sub(pattern, "", schema.CURRENT.text, flags=re.DOTALL)
    return lambda: replace(schema, "CURRENT", dataclasses.replace(schema.CURRENT, text=less))


def _dial_anything() -> None:
    replace(guard, "may_be_dialled", lambda address, allowed: True)


def _leave_the_door_open() -> None:
    replace(Callers, "admit", lambda self, request: None)
    replace(Callers, "of", lambda self, request, request_id: Caller(b"a" * 32, None, request_id))


def _ask_for_anybody() -> None:
    opened = HttpBackend.__init__

    def init(self: HttpBackend, *args: Any, **more: Any) -> None:
        opened(self, *args, **more)
        self.sees_callers = True

    replace(HttpBackend, "__init__", init)


def _quote_keys() -> None:
    replace(Redactor, "item", lambda self, item: item)


def _show_first() -> None:
    send = JobLog._send

    def show_and_send(log: Any) -> None:
        block = joblog._joined(log._waiting)
        log._followers.committed(log._claim.id, log._next_seq, block.count, block.events, is_end=False)
        send(log)

    replace(JobLog, "_send", show_and_send)


def _instead(module: Any, **names: Any) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(module), **names})


GUARDS = {
    "fence": Guard(
        "a write must bring the present epoch and the next sequence number",
        _rewrite(
            r" AND (job\.)?(epoch = (:|row\.)epoch|next_seq = (:|row\.)first_seq)",
            "append",
            "append_segments",
            "rewind",
            "finish",
            "release",
        ),
    ),
    "shield": Guard("a client that hangs up does not break the accepting off", _without_shield),
    "flock": Guard("one process to a file", _without_flock),
    "tenant": Guard("every read asks for the tenant", _rewrite(r" AND (job\.)?tenant = :tenant")),
    "commit-first": Guard("an event is shown after its commit", _show_first),
    "trigger": Guard("the database refuses an illegal move", _without_trigger("job_moves")),
    "outbox": Guard("an end stores its webhooks in its own transaction", _without_trigger("job_ends")),
    "door": Guard("who may not come in is told so before anything is done", _leave_the_door_open),
    "apart": Guard("a backend that sees one key for all is not asked whose a response is", _ask_for_anybody),
    "redactor": Guard("a key that a backend quotes is blotted out", _quote_keys),
    "dial": Guard("the address is judged that is being dialled", _dial_anything),
}
