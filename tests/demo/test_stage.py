"""The processes of the play: they start, they are taped, and they go away."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import httpx2
import pytest
from openai import OpenAI
from rich.console import Console

from demo import proof
from demo.screen import Screen
from demo.stage import Stage, StageError, free_port, is_ok


def test_model_server_starts_and_leaves_with_the_stage(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage:
        url = stage.start_model_server(words_per_second=1000)
        assert is_ok(f"{url}/health")
        assert stage.fallen() is None
    assert not is_ok(f"{url}/health")


def test_tape_holds_the_bytes_of_the_stream_up_to_the_drop(tmp_path: Path) -> None:
    transport = proof.TapeTransport()
    with Stage(tmp_path) as stage:
        url = stage.start_model_server(words_per_second=200)
        with OpenAI(
            base_url=f"{url}/v1", api_key="any", max_retries=0, http_client=httpx2.Client(transport=transport)
        ) as sdk:
            with sdk.responses.create(model="demo-model", input="Count to 5", stream=True) as stream:
                numbers = [event.sequence_number for event in stream]
            assert [proof.number(frame) for frame in proof.frames(bytes(transport.tape))] == numbers

            with sdk.responses.create(model="demo-model", input="Count to 9999", stream=True) as stream:
                cursor = next(event.sequence_number for event in stream if event.type.endswith(".delta"))
            seen = proof.up_to(bytes(transport.tape), cursor)
            assert [proof.number(frame) for frame in seen] == list(range(cursor + 1))


def test_gateway_that_cannot_start_is_reported_with_its_log(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage, pytest.raises(StageError, match=r"gateway ended at once .*\n.*\S"):
        stage.start_gateway("not a url", port=0, admin_port=0)


def test_taken_port_is_replaced_by_a_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        wanted = taken.getsockname()[1]
        assert free_port(wanted) not in (wanted, 0)
    assert free_port(wanted) == wanted
    assert free_port(wanted, taken=(wanted,)) != wanted


def test_screen_wraps_words_and_sends_no_colour_codes_to_a_file() -> None:
    out = io.StringIO()
    screen = Screen(Console(file=out, width=30))
    screen.step("Count")
    for number in range(40):
        screen.words(f" {number}")
    screen.checks([proof.Check("gaps", "none", True), proof.Check("status", "failed", False)])
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 30
    assert "\x1b" not in out.getvalue()
    words = " ".join(line for line in lines if line.strip()[:1].isdigit() and "Count" not in line)
    assert words.split() == [str(number) for number in range(40)]
    assert "FAILED" in out.getvalue()
