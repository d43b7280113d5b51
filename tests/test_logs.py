"""What may stand in a log line, and what never does."""

from __future__ import annotations

import ast
import logging
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

import gateway
from gateway import logs

CANARY = "sk-canary-4d2f"


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """What is written to stderr; logging and its hooks are put back."""
    root = logging.getLogger()
    before = (*root.handlers,), root.level, (*logs.log.handlers,), logs.log.level, logs.log.propagate
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield lambda: capsys.readouterr().err
    root.handlers[:], root.level, logs.log.handlers[:], logs.log.level, logs.log.propagate = before
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


def test_every_field_that_is_logged_is_on_the_list() -> None:
    """A name that is not would be left out in silence."""
    used = set()
    for path in Path(gateway.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "line":
                used |= {keyword.arg for keyword in node.keywords} - {"level", "exc_info"}
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
