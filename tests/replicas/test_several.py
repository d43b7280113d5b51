"""What `make torture REPLICAS=3` plays on: several gateways in the place of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.torture.model import create_body
from tests.torture.trial import Bench, all_trials
from tests.torture.watch import metrics


async def test_several_gateways_look_like_one_to_a_trial(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        model = await bench.model()
        gateway = await bench.gateway(model.url)
        assert len(gateway.processes) == 2
        for number in range(6):
            made = await gateway.call(
                "POST", "/responses", create_body(f"t.{number}", stream=False, deltas=1)
            )
            assert (await gateway.ended(made.json()["id"]))["status"] == "completed"
        pages = [await metrics(one) for one in gateway.processes]
        accepted = [page.total("backburner_jobs_accepted_total") for page in pages]
        assert sum(accepted) == (await metrics(gateway)).total("backburner_jobs_accepted_total") == 6
        await gateway.kill9()
        assert not any(one.is_running for one in gateway.processes)
        await bench.gateway(model.url, store__database_bytes_max=2**24)

    result = await Bench(replace(all_trials()[0], play=play), tmp_path, 1, replicas=2).run()
    assert (result.failures, result.verdict) == ([], "not played")
    assert "it is about the file of one gateway: store__database_bytes_max" in str(result.obstacle)
