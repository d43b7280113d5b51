"""The gateway judged by its own OpenAPI document."""

from __future__ import annotations

import hashlib
from typing import Any

from demo.model_server import listening
from tests.contract.backend import make_app
from tests.contract.play import KEY, judge
from tests.torture.trial import Bench, trial

_WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"dialect": "mka1", "background__resume": "any"},
    {"dialect": "pharia", "background__store_false": "accept"},
    {"tenants__mode": "static_keys", "background__partial_output": "true"},
    {"background__adopt_unacked_retry": "true", "conversations__record_foreground": "true"},
)
_EXAMPLES = 20
"""Per operation and phase; with what the schema itself gives, a round has about 1,000 cases."""


@trial(
    "T31",
    "Schemathesis against /openapi.json: all its phases and checks, valid and invalid data, in every dialect",
    pass_mark="0 server errors, 0 schema violations, 0 undocumented statuses, 0 other failures of any check",
    runs=10,
    short_runs=1,
    round_s=600,
)
async def judge_by_document(bench: Bench) -> None:
    for name in ("server errors", "schema violations", "undocumented statuses", "other failures"):
        bench.add(name, 0)
    keys = bench.directory / "keys"
    keys.write_text(f"{hashlib.sha256(KEY.encode()).hexdigest()} tenant\n")
    keys.chmod(0o600)
    async with listening(make_app(), "127.0.0.1", 0) as root:
        for number in bench.rounds():
            settings = dict(_WAYS[number % len(_WAYS)])
            without = None
            if "tenants__mode" in settings:
                settings["tenants__keys_file"] = keys
                without = "unsupported_method"  # methods that are not ours are not passed on: 404, not 405
            gateway = await bench.gateway(f"{root}/v1", **settings)
            verdict = await judge(
                gateway.url, bench.directory, examples=_EXAMPLES, seed=number, without=without
            )
            bench.add("cases", verdict.cases)
            is_whole = set(verdict.phases.values()) == {"success"}
            bench.require(is_whole or verdict.failures, f"phases: {verdict.phases}")
            for failure in verdict.failures:
                bench.add(_kind(failure))
                bench.require(False, f"{settings}, seed {number}: {failure}")
            await gateway.stop()


def _kind(failure: str) -> str:
    """The figure that a failure belongs to, by what Schemathesis calls it."""
    lower = failure.lower()
    if "server error" in lower:
        return "server errors"
    if "undocumented" in lower or "documented_status" in lower:
        return "undocumented statuses"
    return "schema violations" if "schema" in lower else "other failures"
