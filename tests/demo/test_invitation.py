"""The lines to try by hand work as they stand."""

from __future__ import annotations

import io
import shlex

from rich.console import Console

from demo import play
from demo.screen import Screen


def test_every_line_to_try_carries_the_key_of_the_job() -> None:
    told = io.StringIO()
    screen = Screen(Console(file=told, width=80))
    play._invite(screen, "http://127.0.0.1:9000", "http://127.0.0.1:9001", "demo-model", "resp_1", "demo")
    lines = [line.strip() for line in told.getvalue().splitlines() if line.strip().startswith("curl ")]
    assert len(lines) == 3
    for line in lines:
        words = shlex.split(line)
        assert words[words.index("-H") + 1] == "Authorization: Bearer demo"
        assert any(word.startswith("http://127.0.0.1:9000/v1/responses") for word in words)
