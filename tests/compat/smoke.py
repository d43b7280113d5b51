"""Tries an installed gateway from outside: its version, a create, polls, a stream, a drain.

It asks with the standard library only: what it tries is the installed package, and nothing of this process.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parents[2]
_WAIT_S = 30.0
_LOOK_S = 0.1


class Broken(Exception):
    """It does not do what it should."""


def require(fact: bool, what: str) -> None:
    if not fact:
        raise Broken(what)


def smoke(command: list[str], version: str) -> None:
    """Try `command`, a gateway that is installed.

    Raises:
        Broken: With what went wrong.
    """
    with tempfile.TemporaryDirectory() as place:
        said = _run([*command, "--version"], place)
        require(version in said, f"--version says {said!r}")
        with _process([sys.executable, "-m", "demo.model_server", "--port", "0"], str(ROOT)) as model:
            upstream = _first(model, r"(http://127\.0\.0\.1:\d+/v1)")
            flags = ["--upstream", upstream, "--port", "0", "--admin-port", "0", "--log-format", "json"]
            with _process([*command, "serve", *flags], place) as gateway:
                _use(_first(gateway, r'"listening".*?"url":"(http://[^"]+)"'))
                gateway.terminate()
                require(gateway.wait(_WAIT_S) == 0, "a drain ends with 0")


def _use(base: str) -> None:
    require("demo-model" in str(_asked(f"{base}/models")), "a plain request is passed on")
    asked = {"model": "demo-model", "input": "Count to 9.", "background": True}
    response = _asked(f"{base}/responses", asked)
    require(response["status"] in ("queued", "in_progress"), f"a create answers with {response}")
    until = time.monotonic() + _WAIT_S
    while response["status"] in ("queued", "in_progress") and time.monotonic() < until:
        time.sleep(_LOOK_S)
        response = _asked(f"{base}/responses/{response['id']}")
    require(response["status"] == "completed", f"a poll shows {response['status']}")
    events = _streamed(f"{base}/responses", asked | {"stream": True})
    numbers = [event["sequence_number"] for event in events]
    require(numbers == list(range(len(numbers))), f"a stream has the events {numbers}")
    require(events[-1]["type"] == "response.completed", f"a stream ends with {events[-1]['type']}")
    again = _streamed(f"{base}/responses/{events[0]['response']['id']}?stream=true&starting_after=2")
    require(again == events[3:], "a stream that goes on has other events")


def _streamed(url: str, body: Any = None) -> list[Any]:
    with _answer(url, body) as answer:
        return [json.loads(line[6:]) for line in answer if line.startswith(b"data: {")]


def _asked(url: str, body: Any = None) -> Any:
    with _answer(url, body) as answer:
        return json.load(answer)


def _answer(url: str, body: Any) -> Any:
    data = None if body is None else json.dumps(body).encode()
    return urlopen(Request(url, data, {"Content-Type": "application/json"}), timeout=_WAIT_S)


def _run(command: list[str], place: str) -> str:
    ran = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=_WAIT_S, check=False)
    require(ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}")
    return ran.stdout


@contextmanager
def _process(command: list[str], place: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def _first(process: subprocess.Popen[str], pattern: str) -> str:
    """What the first line that matches says."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if found := re.search(pattern, line):
            return found[1]
    raise Broken("".join(seen))
