"""Log lines: what may stand in them, and how they are written. Their way out is in `logpipe`.

A line has an event and fields of an allow-list: no bodies, query strings or header values. Exceptions are
told by their kind and their frames, never in their own words, which quote what they choked on; and of a
library's record only what is the same each time, for the same reason.
"""

from __future__ import annotations

import logging
import sqlite3
import sys
import threading
import time
import traceback
from typing import Any

import orjson

from gateway.logpipe import LogPipe

log = logging.getLogger("backburner")

FIELDS = frozenset(
    {
        "admin", "after_s", "api", "aside", "attempt", "backend", "bytes", "check", "chosen", "code", "count",
        "database", "doing", "dropped", "durability", "endpoint", "error", "file", "found",
        "healthy", "held", "id", "library", "limit", "model", "open_files_max", "peer", "ran_s",
        "read_broken_off", "reason", "replica", "request", "role", "seconds", "sqlite", "status", "stream",
        "task", "tenant", "tenant_name", "tier", "timeout_s", "to", "tools", "upstream", "upstream_request",
        "upstream_status", "url", "version", "waited_s", "waiting", "wanted", "was",
    }
)  # fmt: skip
"""A tenant is shown by its first 8 hexadecimal digits, and its name if the settings give one. URLs and paths
are those of the settings."""

_JOBS_MAX = 20_000
"""Jobs whose facts are remembered. The default limits allow no more to wait and run."""

_TELLING = (OSError, sqlite3.Error)
"""Exceptions whose words are the system's own: errno and file, or what SQLite has against a statement."""


def line(event: str, *, level: int = logging.INFO, exc_info: Any = None, **fields: Any) -> None:
    """One structured log line; fields that are None are left out."""
    if log.isEnabledFor(level):
        given = {name: value for name, value in fields.items() if value is not None and name in FIELDS}
        log.log(level, event, extra={"fields": given}, exc_info=exc_info)


def hear_seldom(library: str, *, every_s: float) -> None:
    """Take what a library logs for a warning, and one of them in so many seconds."""
    next_s = 0.0

    def is_heard(record: logging.LogRecord) -> bool:
        nonlocal next_s
        if (now_s := time.monotonic()) < next_s:
            return False
        next_s = now_s + every_s
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True

    logging.getLogger(library).addFilter(is_heard)


class JobFacts:
    """Facts of jobs that each line about a job repeats. Whoever learns a fact reports it once."""

    def __init__(self) -> None:
        self._jobs: dict[str, dict[str, Any]] = {}

    def learn(self, response_id: str, facts: dict[str, Any]) -> None:
        known = self._jobs.setdefault(response_id, {})
        known |= facts
        if len(self._jobs) > _JOBS_MAX:
            del self._jobs[next(iter(self._jobs))]

    def of(self, response_id: str) -> dict[str, Any]:
        return self._jobs.get(response_id, {})

    def forget(self, response_id: str) -> dict[str, Any]:
        """The same, for the last time."""
        return self._jobs.pop(response_id, {})


def configure_logging(
    level: str, form: str, *, waiting_bytes_max: int = 2**20, flush_timeout_s: float = 2
) -> None:
    """Send our lines to stderr, one per transition, and keep libraries at warning.

    Args:
        form: `json`, `text`, or `auto`: text on a terminal.
        waiting_bytes_max: Of lines that whoever reads them has not taken; more are dropped.
        flush_timeout_s: How long the end of the process waits for the last of them to be taken.
    """
    if form == "auto":
        form = "text" if sys.stderr.isatty() else "json"
    handler = _Handler(_JsonLines() if form == "json" else _TextLines(), waiting_bytes_max, flush_timeout_s)
    log.handlers[:] = [handler]
    log.setLevel(level.upper())
    log.propagate = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    # No line tells of them, and to look them up for each record costs a third of it.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # as its own guide has it: nor where a record was made
    # What nobody has caught Python would print whole.
    sys.excepthook = lambda kind, error, trace: _uncaught(error)
    threading.excepthook = lambda args: _uncaught(args.exc_value)
    sys.unraisablehook = lambda args: _uncaught(args.exc_value)


def lines_dropped() -> int:
    """The number of lines that were dropped."""
    return sum(handler.dropped for handler in log.handlers if isinstance(handler, _Handler))


class _Handler(logging.Handler):
    """Writes to stderr without waiting for it. At the end of the process `logging` flushes it."""

    def __init__(self, lines: logging.Formatter, waiting_bytes_max: int, flush_timeout_s: float) -> None:
        super().__init__()
        self.setFormatter(lines)
        self._flush_timeout_s = flush_timeout_s
        self._pipe = LogPipe(sys.stderr.fileno(), waiting_bytes_max=waiting_bytes_max, say=self._dropped)

    @property
    def dropped(self) -> int:
        return self._pipe.dropped

    def emit(self, record: logging.LogRecord) -> None:
        self._pipe.put(self._encoded(record))

    def flush(self) -> None:
        self._pipe.flush(self._flush_timeout_s)

    def close(self) -> None:
        self._pipe.close()
        super().close()

    def _encoded(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode("utf-8", "backslashreplace")

    def _dropped(self, count: int) -> bytes:
        said = {
            "name": log.name,
            "levelno": logging.WARNING,
            "levelname": "WARNING",
            "msg": "log_lines_dropped",
        }
        return self._encoded(logging.makeLogRecord({**said, "fields": {"dropped": count}}))


def _uncaught(error: BaseException | None) -> None:
    line("defect", level=logging.ERROR, exc_info=error)


class _Lines(logging.Formatter):
    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """The fields of a record, with `trace` if it has an exception."""
        found = {"event": record.getMessage(), **getattr(record, "fields", {})}
        if record.name != log.name:
            found = {"event": "library", "library": record.name, "reason": str(record.msg).partition("\n")[0]}
        if record.exc_info and record.exc_info[1] is not None:
            found["trace"] = trace(record.exc_info[1])
        return found


class _JsonLines(_Lines):
    def format(self, record: logging.LogRecord) -> str:
        day = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        head = {"ts": f"{day}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        return orjson.dumps({**head, **self.fields(record)}, default=str).decode()


class _TextLines(_Lines):
    def format(self, record: logging.LogRecord) -> str:
        fields = self.fields(record)
        event, told = fields.pop("event"), fields.pop("trace", None)
        shown = " ".join(f"{name}={_one_line(value)}" for name, value in fields.items())
        text = f"{self.formatTime(record)} {record.levelname:<7} {event} {shown}".rstrip()
        return text if told is None else f"{text}\n{told}"


def _one_line(value: Any) -> str:
    text = str(value)
    return text if text.isprintable() else ascii(text)


def trace(error: BaseException, *, depth: int = 10) -> str:
    """Where an exception comes from, its causes first: frames and kinds."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    told = [trace(cause, depth=depth - 1), ""] if cause is not None and depth else []
    told.append("".join(traceback.format_tb(error.__traceback__)).rstrip())
    said = f": {error}" if isinstance(error, _TELLING) else ""
    told.append(f"{type(error).__qualname__}{said}")
    for number, inner in enumerate(error.exceptions if isinstance(error, BaseExceptionGroup) else (), 1):
        told.append(f"--- {number} of the group\n{trace(inner, depth=depth - 1)}" if depth else "…")
    return "\n".join(told).strip("\n")
