"""One run of Schemathesis against a gateway: its own process, all phases, all checks."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import orjson

_ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-contract"
_REPLACED = "positive_data_acceptance"
"""It cannot know of state: `checks` has one that does."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of it.

    Attributes:
        cases: Requests that were judged.
        failures: One line for each unique failure.
        phases: Name to `success`, `failure`, `skip`.
    """

    cases: int
    failures: list[str]
    phases: dict[str, str]
    said: str


async def judge(url: str, folder: Path, *, examples: int, seed: int, without: str | None = None) -> Verdict:
    """Judge a gateway by its own document.

    Args:
        url: As a client has it, with the base path.
        folder: For the report.
        examples: Per operation, in each phase that draws any.
        without: A check that is left out.
    """
    origin = url.rsplit("/", 1)[0]
    report = folder / f"schemathesis-{seed}.json"
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("st")), "run", f"{origin}/openapi.json"),
        *("--checks", "all", "--exclude-checks", f"{_REPLACED},{without}" if without else _REPLACED),
        *("--max-examples", str(examples), "--seed", str(seed)),
        *("--continue-on-failure", "--suppress-health-check", "all", "--request-timeout", "20"),
        *("--header", f"Authorization: Bearer {KEY}"),
        *("--report", "json", "--report-json-path", str(report)),
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(_ROOT),
            "SCHEMATHESIS_HOOKS": "tests.contract.checks",
            "CONTRACT_URL": url,
            "CONTRACT_CREDENTIAL": f"Bearer {KEY}",
            "CONTRACT_SEED": str(seed),
            "NO_COLOR": "1",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    if not report.exists():
        raise AssertionError(f"no report:\n{said.decode()}")
    found = orjson.loads(report.read_bytes())
    failures = [f"{one['code']} {one['title']}: {one['operations']}" for one in found["failures"]]
    failures += [str(error) for error in found["errors"]]
    if not failures and process.returncode:
        failures = [f"exit status {process.returncode}"]
    phases = {name: phase["status"] for name, phase in found["phases"].items()}
    return Verdict(found["test_cases"]["generated"], failures, phases, said.decode())
