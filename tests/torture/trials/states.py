"""The store against a model of it, in every order of calls that Hypothesis thinks of."""

from __future__ import annotations

import asyncio

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.store.homes import DatabaseHome
from tests.store.machine import StoreMachine
from tests.torture.trial import Bench, trial

_STEPS = 50


@trial(
    "T8",
    "the store against its model: create, claim, append, finish, cancel, delete, expire, sweep, crash, reap, "
    "release, repeat, by two owners",
    pass_mark="0 divergences in any run of 50 steps; every illegal move refused by the table itself",
    runs=2000,
    short_runs=25,
    round_s=5,
)
async def store_against_model(bench: Bench) -> None:
    rounds = bench.rounds()
    next(rounds)
    if bench.replicas > 1:
        url = await bench.database()
        StoreMachine.homes.append(lambda: DatabaseHome(url))
    before = StoreMachine.illegal_moves
    StoreMachine.on_example.append(lambda: next(rounds, None))
    play = settings(
        max_examples=bench.runs,
        stateful_step_count=_STEPS,
        deadline=None,
        database=None,  # every run finds its own examples
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    try:
        await asyncio.to_thread(run_state_machine_as_test, StoreMachine, settings=play)
    except AssertionError as error:
        bench.add("divergences")
        bench.require(False, f"{type(error).__name__}: {error}"[:2000])
    else:
        bench.figure("divergences", 0)
    finally:
        StoreMachine.on_example.clear()
        del StoreMachine.homes[1:]
    bench.figure("illegal moves refused", StoreMachine.illegal_moves - before)
    bench.require(StoreMachine.illegal_moves > before, "no illegal move was tried")
