"""docs/log-events.md: every line that the log may have, with its fields.

Events, fields and levels are read from the calls of `line`; only what they mean is written here. A test fails
while an event or a field has no words here, or the other way round.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from gateway.logs import FIELDS
from reference.sources import Called, calls, words
from reference.tables import WRITTEN, code, table

EVENTS = {
    "listening": "The gateway answers.",
    "refused": "The gateway did not start; `reason` says why. Exit status 75: later may be better; 78: it will not.",
    "database": "PostgreSQL was reached, and may be used: its `version`, and its `synchronous_commit` as `durability`.",
    "draining": "SIGTERM came: running responses have `timeout_s` to end.",
    "stopped": "The end of the process, in good order.",
    "few_open_files": "The limit of file descriptors is below what the settings can need.",
    "job": "A response changed its state; `to` says to what. `waiting` and `silent` are no states that clients see: it "
    "will run again after `after_s`; its backend has sent nothing for `waited_s`.",
    "adopted": "The retry of a create got the response of the first try.",
    "operator": "Somebody changed something by the page, the command line or the admin API (`doing`).",
    "order": "What an operator has ordered at another gateway, or before the start, holds here now: a pause, its end "
    "(`resume`), or slots per replica (`limit`; none: those of the settings again).",
    "claim_lost": "Another run or an ending came first; nothing was written.",
    "not_recorded": "A plain answer could not be stored as a turn. The client got it all the same.",
    "tools_omitted": "A request had tools that its backend cannot run; it was served without them.",
    "caller_refused": "A caller got 429, `count` times since the last line about it (every 10 s at most).",
    "lesson": "A backend refused a call and got it in another form; `reason` is the row that taught it.",
    "backend_noticed": "A backend's answer had something for which a response has no place; told once.",
    "backend_api": "What a backend speaks, found out by asking.",
    "backfill": "Background responses are held back while plain requests wait at the engine, or go on again.",
    "replica": "A health check came to another result than the one before.",
    "webhook": "An event was taken, put off or given up by a receiver.",
    "webhook_endpoint": "A receiver is down (`still_down`: it was before the start) or up again, or was disabled (it answered 410) or enabled.",
    "store": "The store changed its [state](store.md#its-states).",
    "store_unavailable": "The store did not do what was asked (`doing`). What was to be stored is kept, and tried again.",
    "store_recreated": "A damaged database was set aside (`aside`), and an empty one begun (`store.on_corrupt`).",
    "store_upgraded": "A database of an earlier release got the tables of this one (schema numbers `was` and `to`).",
    "store_taken_away": "A file of the store is not in its place: deleted, moved or replaced.",
    "store_restored": "The deleted database was written again from what is open.",
    "store_not_restored": "That could not be done.",
    "store_left": "At the end of the process the file was still missing: what was stored since is not in it.",
    "store_log_too_large": "The write-ahead log is over `store.wal_bytes_max` and could not be emptied: somebody reads.",
    "checked": "The structure of the database was checked; `found` is `ok`, or what is damaged.",
    "check_failed": "That check did not come to its end.",
    "clock_jump": "The wall clock jumped by `seconds`, and was not followed.",
    "connection_failed": "A client's connection broke.",
    "defect": "A bug in the gateway, with its `trace`. Please report it.",
    "task_died": "A bug that ends the process, with its `trace`. Please report it.",
    "log_lines_dropped": "So many lines (`dropped`) were lost before this one: whoever reads the log was too slow.",
    "library": "A library's own warning, without its values.",
}

WORDS = {
    "admin": "URL of the admin port", "after_s": "seconds until it is tried again, or that it took",
    "api": "`responses`, `chat` or `none`", "aside": "new path of the damaged file",
    "attempt": "number of the attempt, from 1", "backend": "name of the backend",
    "bytes": "size", "check": "result of the health check",
    "chosen": "the filter by which jobs were chosen, `all`, or `ids`", "code": "[error code](error-codes.md)",
    "count": "how many", "database": "path of the database, or `postgresql`", "doing": "what was asked for",
    "dropped": "lost lines", "durability": "`store.durability`, or PostgreSQL's own", "endpoint": "name of the receiver",
    "error": "kind of the exception", "file": "which file is missing: `database`, `-wal`, `-shm`",
    "found": "what was found", "healthy": "whether calls go there", "held": "whether they are held back",
    "id": "id of the response", "library": "its name", "limit": "how many there may be",
    "model": "model of the request", "open_files_max": "limit of file descriptors",
    "peer": "address of whoever asked", "role": "`admin` or `read`",
    "ran_s": "seconds from started to ended", "read_broken_off": "whether a read of our own was ended",
    "reason": "a word, or what the system said", "replica": "its number, from 0",
    "request": "`X-Request-Id` of the create's answer", "seconds": "by how much",
    "sqlite": "version of SQLite", "status": "HTTP status", "stream": "whether it was created as a stream",
    "task": "its name", "tenant": "first 8 digits of the caller's name", "tenant_name": "its name in the settings",
    "tier": "the new tier of jobs",
    "timeout_s": "`server.drain_timeout_s`", "to": "the new state", "tools": "their types",
    "upstream": "base URLs", "upstream_request": "`X-Request-Id` that the backend got",
    "upstream_status": "status of the backend's answer", "url": "URL of the gateway, or of the replica",
    "version": "of Backburner, or of PostgreSQL", "waited_s": "seconds of waiting, or of silence",
    "waiting": "requests in the engine's queue", "wanted": "file descriptors that the settings can need",
    "was": "the state before",
}  # fmt: skip

_OF_JOBS = ("backend", "model", "request", "attempt", "replica", "upstream_request", "upstream_status")
"""What `JobFacts` adds as far as it is known."""

_NOT_CALLED = {"log_lines_dropped": ({"dropped"}, "warning"), "library": ({"library", "reason"}, "warning")}
"""Written by `gateway.logs` itself."""


@dataclass(slots=True)
class Event:
    """All lines of one name."""

    fields: set[str] = field(default_factory=set)
    levels: set[str] = field(default_factory=set)
    to: set[str] = field(default_factory=set)


def events() -> dict[str, Event]:
    """Every event that the code has, by its name."""
    found: dict[str, Event] = {}
    for call in calls("line"):
        [name] = words(call.args[0])
        event = found.setdefault(name, Event())
        event.fields |= {name for name in call.named if name in FIELDS} | set(
            _OF_JOBS if call.has_more else ()
        )
        event.levels |= _levels(call)
        if "to" in call.named and isinstance(call.named["to"], ast.Constant):
            event.to |= words(call.named["to"])
    for name, (fields, level) in _NOT_CALLED.items():
        found[name] = Event(fields, {level})
    return found


def _levels(call: Called) -> set[str]:
    if "level" not in call.named:
        return {"info"}
    told = {node.attr.lower() for node in ast.walk(call.named["level"]) if isinstance(node, ast.Attribute)}
    return told & {"debug", "info", "warning", "error"} or {"info", "warning", "error"}


def page() -> str:
    found = events()
    rows = []
    for name, meaning in EVENTS.items():
        event = found[name]
        to = f" `to`: {code(sorted(event.to))}." if event.to else ""
        rows.append((f"`{name}`", ", ".join(sorted(event.levels)), meaning + to, code(sorted(event.fields))))
    parts = [
        "# Log events",
        WRITTEN,
        "One line for each thing that happens, on stderr: JSON, or text on a terminal (`log.format`). Each has `ts`, "
        "`level` and `event`, and of the fields below those that are known. An exception is in `trace`. No body, query "
        "string, header value or credential is ever in a line.",
        table(("event", "level", "what it means", "fields"), rows),
        "States of a response (`to` of `job`) besides: `completed`, `failed`, `incomplete`, `cancelled`, with `reason` and, "
        "if it failed, `code`.",
        "## Fields",
        table(("field", "what"), ((f"`{name}`", what) for name, what in sorted(WORDS.items()))),
    ]
    return "\n\n".join(parts) + "\n"
