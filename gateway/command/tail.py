"""`backburner tail ID`: the text of a response as it comes, to its end; or how far it is, if text is hidden.

Text goes to stdout, and nothing else does; what there is to say of it goes to stderr.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from gateway.command import screen
from gateway.command.admin import API, Admin, NotReached, look, opened, part
from gateway.command.ids import whole
from gateway.command.status import DONE, ENDED_BADLY, NotDone
from gateway.core.job import FIRST_OUTPUT_SEQ

_SILENCE_S = 35.0
"""The gateway sends a comment every 10 s."""
_AGAIN_S = 1.0
_AWAY_S_MAX = 60.0
_TEXT = frozenset({"response.output_text.delta", "response.refusal.delta"})
_THOUGHT = frozenset({"response.reasoning_text.delta", "response.reasoning_summary_text.delta"})
_OVER = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled", "error"}
)
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


def run(admin: Admin, args: Namespace) -> int:
    """Follow it. Raises: NotDone."""
    response_id = whole(admin, args.id)
    try:
        last = _follow(admin, response_id, args)
    except NotDone as error:
        if error.code != "content_hidden":
            raise
        screen.notice(f"{error} This is how far it is:")
        last = _watch(admin, response_id, args)
    status = look(admin, f"jobs/{part(response_id)}")
    took_s = ((status["finished_at_ms"] or status["now_ms"]) - status["created_at_ms"]) / 1000
    code = f" ({status['error']})" if status["error"] else ""
    screen.notice(f"{status['status']}{code} after {screen.span(took_s)}, {last + 1} events")
    return DONE if status["status"] in ("completed", "incomplete") else ENDED_BADLY


def _bear(error: NotReached, since_s: float) -> None:
    """Say that the gateway is away: a restart takes a moment. Raises: NotReached, if it takes too long."""
    if time.monotonic() - since_s > _AWAY_S_MAX:
        raise error
    screen.notice(f"{error}; trying again")


# -- with its text


def _follow(admin: Admin, response_id: str, args: Namespace) -> int:
    """Print it as it comes, from one connection to the next; the number of its last event."""
    printer = _Events() if args.output == "json" else _Prose(is_terminal=screen.is_terminal())
    last, attempt, since_s = args.after, None, time.monotonic()
    while True:
        try:
            if attempt is not None and attempt != _attempt(admin, response_id):
                printer.rewound()
                last, attempt = FIRST_OUTPUT_SEQ - 1, None
            for name, event in _events(admin, response_id, last):
                since_s = time.monotonic()
                if name == "rewound":
                    printer.rewound()
                    last, attempt = FIRST_OUTPUT_SEQ - 1, None
                    continue
                last = event.get("sequence_number", last)
                if attempt is None and last >= FIRST_OUTPUT_SEQ:
                    attempt = _attempt(admin, response_id)
                printer.take(event)
                if event.get("type") in _OVER:
                    printer.close()
                    return int(last)
        except NotReached as error:
            _bear(error, since_s)
        time.sleep(_AGAIN_S)


def _attempt(admin: Admin, response_id: str) -> int:
    """Which one it is: events of a later one do not go on from those of this one."""
    return int(look(admin, f"jobs/{part(response_id)}")["attempt"])


def _events(admin: Admin, response_id: str, after: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Its events after `after`, as they come, until the connection ends."""
    cursor = f"?after={after}" if after >= 0 else ""
    with opened(admin, f"{API}jobs/{part(response_id)}/events{cursor}", None, limit_s=_SILENCE_S) as stream:
        name = ""
        for line in stream:
            if line.startswith(b"event: "):
                name = line[7:].strip().decode()
            elif line.startswith(b"data: "):
                yield name, json.loads(line[6:])


class _Events:
    """Each event on a line."""

    def take(self, event: dict[str, Any]) -> None:
        screen.write(json.dumps(event, ensure_ascii=False, separators=(",", ":")))

    def rewound(self) -> None:
        screen.write('{"type":"rewound"}')

    def close(self) -> None: ...


class _Prose:
    """The text; on a terminal thoughts and calls of tools as well, in grey."""

    def __init__(self, *, is_terminal: bool) -> None:
        self._is_terminal = is_terminal
        self._is_at_start = True

    def take(self, event: dict[str, Any]) -> None:
        kind, delta = event.get("type"), event.get("delta")
        if kind in _TEXT and isinstance(delta, str):
            self._put(screen.prose(delta) if self._is_terminal else delta)
        elif kind in _THOUGHT and isinstance(delta, str) and self._is_terminal:
            self._put(f"{_DIM}{screen.prose(delta)}{_PLAIN}")
        elif kind == "response.output_item.done":
            self._end_line()
            item = event.get("item")
            if isinstance(item, dict) and item.get("type") == "function_call" and self._is_terminal:
                call = screen.one_line(f"{item.get('name')}({item.get('arguments')})")
                self._put(f"{_DIM}{call}{_PLAIN}\n")

    def rewound(self) -> None:
        self._end_line()
        screen.notice("it runs again from its start; what came before is void")

    def close(self) -> None:
        self._end_line()

    def _put(self, text: str) -> None:
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()
            self._is_at_start = text.endswith("\n")

    def _end_line(self) -> None:
        if not self._is_at_start:
            self._put("\n")


# -- without


def _watch(admin: Admin, response_id: str, args: Namespace) -> int:
    """How far it is, until it is over; the number of its last event."""
    known, since_s = None, time.monotonic()
    for _ in screen.again_and_again(_AGAIN_S):
        try:
            job = look(admin, f"jobs/{part(response_id)}")
        except NotReached as error:
            _bear(error, since_s)
            continue
        since_s = time.monotonic()
        now = job["status"], job["event_count"]
        if now != known and args.output == "json":
            screen.write(json.dumps(job, ensure_ascii=False))
        elif now != known:
            screen.write(_how_far(job))
        known = now
        if job["finished_at_ms"] is not None:
            break
    return int(job["event_count"]) - 1


def _how_far(job: dict[str, Any]) -> str:
    said = f"{job['status']}, {job['event_count']} events"
    if job["events_per_s"]:
        said += f", {job['events_per_s']:g} a second"
    return said if job["waits"] is None else f"{said}. {job['waits']['sentence']}"
