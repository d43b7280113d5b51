"""What may stand in a log line, and what never does."""

from __future__ import annotations

import ast
import logging
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import orjson
import pytest
from prometheus_client import generate_latest

import gateway
from gateway import logs
from gateway.logpipe import LogPipe
from gateway.observe import BackendLoad, Observer

CANARY = "sk-canary-4d2f"


@pytest.fixture
def told(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """What is written to stderr; logging and its hooks are put back."""
    root = logging.getLogger()
    before = (*root.handlers,), root.level, (*logs.log.handlers,), logs.log.level, logs.log.propagate
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook

    def written() -> str:
        for handler in logs.log.handlers:
            handler.flush()
        return capfd.readouterr().err

    yield written
    for handler in logs.log.handlers:
        handler.close()
    root.handlers[:], root.level, logs.log.handlers[:], logs.log.level, logs.log.propagate = before
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


def test_every_field_that_is_logged_is_on_the_list() -> None:
    """A name that is not would be left out in silence."""
    used = set()
    for path in Path(gateway.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "line":
                used |= {keyword.arg for keyword in node.keywords} - {"level", "exc_info", None}
    assert used - logs.FIELDS == set()


def test_nothing_is_logged_past_the_list() -> None:
    for path in Path(gateway.__file__).parent.rglob("*.py"):
        if path.name != "logs.py":
            source = path.read_text()
            assert "getLogger" not in source, path
            assert "log.log(" not in source, path


def test_a_field_that_is_not_on_the_list_is_left_out(told: Callable[[], str]) -> None:
    logs.configure_logging("debug", "json")
    logs.line("job", id="resp_1", body=CANARY, authorization=CANARY, reason=None)
    line = orjson.loads(told())
    assert {name: line[name] for name in line if name != "ts"} == {
        "level": "info",
        "event": "job",
        "id": "resp_1",
    }


@pytest.mark.parametrize("form", ["json", "text"])
def test_an_exception_is_told_by_its_kind_and_place_and_not_by_its_words(
    told: Callable[[], str], form: str
) -> None:
    logs.configure_logging("debug", form)
    try:
        try:
            raise ValueError(f"Invalid header value: {CANARY}")
        except ValueError as error:
            raise ExceptionGroup(CANARY, [KeyError(CANARY), error]) from error
    except ExceptionGroup:
        logs.line("defect", level=logging.ERROR, exc_info=True)
    text = told()
    assert CANARY not in text
    for kind in ("ValueError", "KeyError", "ExceptionGroup", "test_logs.py"):
        assert kind in text


def test_an_exception_that_refers_to_itself_is_told_all_the_same() -> None:
    error = ValueError()
    error.__context__ = group = ExceptionGroup("", [error])
    group.__context__ = error
    assert 0 < len(logs.trace(error)) < 1_000_000


def test_what_the_system_says_is_told() -> None:
    assert logs.trace(sqlite3.OperationalError("disk I/O error")) == "OperationalError: disk I/O error"
    assert "No space left" in logs.trace(OSError(28, "No space left on device"))


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_librarys_record_is_told_without_what_changes_in_it(told: Callable[[], str], form: str) -> None:
    logs.configure_logging("debug", form)
    logging.getLogger("some.library").warning("Client protocols %r don't overlap", CANARY)
    logging.getLogger("asyncio").error(f"Task exception was never retrieved\nfuture: <{CANARY}>")
    logging.getLogger("some.library").info("Nothing special: %s", CANARY)
    text = told()
    assert CANARY not in text
    assert "some.library" in text
    assert "Task exception was never retrieved" in text
    assert "Nothing special" not in text


def test_what_nobody_caught_is_told_in_the_same_way(told: Callable[[], str]) -> None:
    logs.configure_logging("debug", "json")
    error = RuntimeError(CANARY)
    sys.excepthook(RuntimeError, error, None)

    class Broken:
        def __del__(self) -> None:
            raise RuntimeError(CANARY)

    Broken()
    thread = threading.Thread(target=lambda: 1 / 0, name=CANARY)
    thread.start()
    thread.join()
    text = told()
    lines = [orjson.loads(line) for line in text.splitlines()]
    assert [line["event"] for line in lines] == ["defect"] * 3
    assert "ZeroDivisionError" in lines[2]["trace"]
    assert CANARY not in text


def test_a_value_of_several_lines_stays_on_one(told: Callable[[], str]) -> None:
    logs.configure_logging("info", "text")
    logs.line("not_recorded", id="resp_1\nERROR forged id=resp_2")
    assert len(told().splitlines()) == 1


def test_what_is_known_of_a_job_is_in_each_later_line_until_its_end(told: Callable[[], str]) -> None:
    logs.configure_logging("info", "json")
    observer = Observer()
    observer.job_known("resp_1", backend="gpu", model="tiny", request="r-1")
    observer.job_accepted("resp_1", "local", b"t" * 32, is_streamed=False)
    observer.job_started("resp_1", "local", 1, 0.5, is_first=True)
    observer.job_called("resp_1", 0, "u-1", 503)
    observer.job_released("resp_1", "upstream_put_off", 1.0)
    observer.job_started("resp_1", "local", 2, 1.5, is_first=False)
    observer.job_called("resp_1", 1, "u-1", None)
    observer.job_finished("resp_1", "local", "failed", "server_error", "upstream_cut", 2.0)
    observer.job_deleted("resp_1")
    lines = [orjson.loads(line) for line in told().splitlines()]
    of_job = {"backend": "gpu", "model": "tiny", "request": "r-1"}
    assert all(of_job.items() <= line.items() for line in lines[:-1])
    called = [(line.get("attempt"), line.get("replica"), line.get("upstream_status")) for line in lines]
    assert called == [
        (None, None, None),
        (1, None, None),
        (1, 0, 503),
        (2, 0, 503),
        (2, 1, None),
        (None, None, None),
    ]
    assert "backend" not in lines[-1]


def test_no_more_jobs_are_remembered_than_there_can_be() -> None:
    facts = logs.JobFacts()
    for number in range(20_010):
        facts.learn(f"resp_{number}", {"backend": "gpu"})
    assert facts.of("resp_9") == {}
    assert facts.of("resp_10") == {"backend": "gpu"}


# -- the way out


def _pipe(descriptor: int, waiting_bytes_max: int = 1000) -> LogPipe:
    return LogPipe(descriptor, waiting_bytes_max=waiting_bytes_max, say=lambda count: b"dropped %d\n" % count)


def _numbered(first: int, last: int) -> list[bytes]:
    return [b"line %05d\n" % number for number in range(first, last)]


def _filled(descriptor: int) -> int:
    """A pipe without room. Returns how much is in it."""
    os.set_blocking(descriptor, False)
    size = 0
    with suppress(BlockingIOError):
        while True:
            size += os.write(descriptor, b"." * 512)
    os.set_blocking(descriptor, True)
    return size


def _read_until(descriptor: int, end: bytes) -> bytes:
    text = b""
    while not text.endswith(end):
        text += os.read(descriptor, 2**16)
    return text


def test_lines_come_in_their_order_and_a_flush_waits_for_them() -> None:
    reader, writer = os.pipe()
    pipe = _pipe(writer, 2**20)
    for line in _numbered(0, 3000):
        pipe.put(line)
    pipe.flush(20)
    assert os.read(reader, 2**17) == b"".join(_numbered(0, 3000))
    assert pipe.dropped == 0
    pipe.close()


@pytest.mark.parametrize("blocking", [True, False])
def test_a_reader_that_hangs_costs_lines_and_no_time_and_is_told_how_many(blocking: bool) -> None:
    reader, writer = os.pipe()
    size = _filled(writer)
    os.set_blocking(writer, blocking)
    pipe = _pipe(writer)
    for line in _numbered(0, 5000):
        pipe.put(line)  # returns
    pipe.flush(0.01)  # so does this
    dropped = pipe.dropped
    assert dropped > 3000
    text = _read_until(reader, b"dropped %d\n" % dropped)
    kept = text[size:].splitlines(keepends=True)[:-1]
    assert kept == _numbered(0, 5000 - dropped)
    pipe.put(b"and on\n")
    pipe.flush(20)
    assert os.read(reader, 2**16) == b"and on\n"
    pipe.close()


def test_lines_for_a_reader_that_has_gone_are_dropped_and_counted() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    pipe = _pipe(writer)
    pipe.put(b"one\n")
    pipe.flush(20)
    pipe.put(b"two\n")
    pipe.flush(20)
    assert pipe.dropped == 2
    pipe.close()


def test_what_was_dropped_is_a_metric(told: Callable[[], str]) -> None:
    logs.configure_logging("info", "json", waiting_bytes_max=10)
    observer = Observer()
    logs.line("job", id="resp_1")
    assert b"backburner_log_lines_dropped_total 1.0" in observer.exposition()
    [line] = [orjson.loads(line) for line in told().splitlines()]
    assert (line["event"], line["level"], line["dropped"]) == ("log_lines_dropped", "warning", 1)


def test_the_metrics_page_reads_as_the_librarys_own() -> None:
    observer = Observer()
    observer.backends_measured([BackendLoad('a"b\\c\nd', {"slot": 2}, 1.5, 3, 4)])
    observer.committed(3, 0.002)
    found, expected = (
        [
            (line.rpartition(" ")[0], line[0] == "#" or float(line.split()[-1]))
            for line in text.decode().splitlines()
        ]
        for text in (observer.exposition(), generate_latest(observer.registry))
    )
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert [each for each in found if "process" not in each[0]] == [
        each for each in expected if "process" not in each[0]
    ]
