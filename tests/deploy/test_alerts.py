"""Each alert fires while its cause is there, and clears after it, by the tool that comes with Prometheus.

The causes themselves are made in test_prometheus.py, at a real gateway.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.deploy.house import ROOT, RULES, alerts

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool: apt-get install prometheus has it")


@dataclass(frozen=True, slots=True)
class Case:
    """Attributes:
    series: What is scraped once a minute, in promtool's notation: well, then ill, then well again.
    """

    alert: str
    series: dict[str, str]
    ill_at: str = "25m"
    well_at: str = "99m"


def _ill(well: object, ill: object) -> str:
    """A gauge: 5 minutes well, 25 ill, 90 well."""
    return f"{well}+0x4 {ill}+0x24 {well}+0x90"


_RISING = "0+0x4 0+60x24 1440+0x90"
"""A counter that rises while it is ill, 1 in a second."""

_FULL = {
    'backburner_backend_running{backend="gpu",instance="a"}': _ill(1, 8),
    'backburner_backend_slots{backend="gpu",instance="a"}': "8+0x120",
    'backburner_backend_running{backend="other",instance="a"}': "1+0x120",
    'backburner_backend_slots{backend="other",instance="a"}': "8+0x120",
}


def _slow(metric: str, labels: str) -> dict[str, str]:
    """A histogram with all values over a second while it is ill, and under a millisecond else."""
    well = "0+60x4 240+0x24 240+60x90"
    every = "0+60x120"
    return {
        f'{metric}_bucket{{{labels},le="0.001"}}': well,
        f'{metric}_bucket{{{labels},le="1"}}': well,
        f'{metric}_bucket{{{labels},le="5"}}': every,
        f'{metric}_bucket{{{labels},le="+Inf"}}': every,
    }


CASES = (
    Case("BackburnerDown", {'up{job="backburner",instance="a"}': _ill(1, 0)}),
    Case(
        "BackburnerRestarts",
        {
            'process_start_time_seconds{job="backburner",instance="a"}': "1+0x4 5+10x24 245+0x90",
            'process_start_time_seconds{job="backburner",instance="steady"}': "1+0x120",
        },
    ),
    Case("BackburnerBackendDown", {'backburner_replica_up{backend="gpu",replica="0"}': _ill(1, 0)}),
    Case(
        "BackburnerReplicaDown",
        {
            'backburner_replica_up{backend="gpu",replica="0"}': _ill(1, 0),
            'backburner_replica_up{backend="gpu",replica="1"}': "1+0x120",
        },
    ),
    Case(
        "BackburnerKeyRefused",
        {'backburner_replica_check{backend="gpu",replica="0",result="key_refused"}': _ill(0, 1)},
    ),
    Case(
        "BackburnerBackendSaturated",
        _FULL | {'backburner_jobs_waiting{backend="gpu",reason="slot",instance="a"}': _ill(0, 3)},
    ),
    Case(
        "BackburnerFailures",
        {
            'backburner_jobs_finished_total{backend="gpu",outcome="failed",code="server_error"}': _RISING,
            'backburner_jobs_finished_total{backend="gpu",outcome="completed",code=""}': "0+60x120",
            'backburner_jobs_finished_total{backend="other",outcome="completed",code=""}': "0+60x120",
        },
    ),
    Case("BackburnerResponsesSilent", {'backburner_running_silent{backend="gpu"}': _ill(0, 2)}),
    Case("BackburnerRetriesRefused", {'backburner_upstream_retries_refused_total{backend="gpu"}': _RISING}),
    Case("BackburnerOldestWaiting", {'backburner_jobs_waiting_oldest_seconds{backend="gpu"}': _ill(1, 900)}),
    Case(
        "BackburnerNothingFinishes",
        {
            'backburner_jobs_waiting{backend="gpu",reason="slot",instance="a"}': _ill(0, 3) + " 0+0x90",
            'backburner_jobs_finished_total{backend="gpu",outcome="completed",code=""}': "0+0x40 0+9x170",
            'backburner_jobs_waiting{backend="busy",reason="slot",instance="a"}': "3+0x210",
            'backburner_jobs_finished_total{backend="busy",outcome="completed",code=""}': "0+9x210",
        },
    ),
    Case(
        "BackburnerQueueFull", {'backburner_creates_refused_total{reason="queue_full",instance="a"}': _RISING}
    ),
    Case(
        "BackburnerCallerFloods",
        {'backburner_creates_refused_total{reason="tenant_queue_full",instance="a"}': _RISING},
    ),
    Case(
        "BackburnerStoreNotOk",
        {
            'backburner_store_state{state="ok",instance="a"}': _ill(1, 0),
            'backburner_store_state{state="full",instance="a"}': _ill(0, 1),
        },
    ),
    Case("BackburnerStoreFilling", {'backburner_store_used_ratio{instance="a"}': _ill(0.1, 0.8)}),
    Case("BackburnerDiskSlow", _slow("backburner_commit_seconds", 'instance="a"')),
    Case("BackburnerLoopLag", _slow("backburner_loop_lag_seconds", 'instance="a"')),
    Case("BackburnerWebhookDown", {'backburner_webhook_down{endpoint="billing"}': _ill(0, 1)}),
    Case(
        "BackburnerWebhooksGivenUp",
        {'backburner_webhook_deliveries_total{endpoint="billing",outcome="given_up"}': _RISING},
    ),
    Case("BackburnerOutputInMemory", {'backburner_output_waiting{instance="a"}': _ill(0, 2)}),
    Case(
        "BackburnerFileDescriptors",
        {
            'process_open_fds{job="backburner",instance="a"}': _ill(10, 900),
            'process_max_fds{job="backburner",instance="a"}': "1024+0x120",
        },
    ),
    Case("BackburnerLogLinesDropped", {'backburner_log_lines_dropped_total{instance="a"}': _RISING}),
    Case("BackburnerClockJumped", {'backburner_clock_jumps_total{instance="a"}': _RISING}),
)


@needs_promtool
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_once_while_its_cause_is_there_and_clears_after_it(case: Case, tmp_path: Path) -> None:
    firing = f'count(ALERTS{{alertname="{case.alert}", alertstate="firing"}}) or vector(0)'
    expected = {"4m": 0, case.ill_at: 1, case.well_at: 0}
    file = tmp_path / "test.yml"
    checks = [
        {"expr": firing, "eval_time": at, "exp_samples": [{"labels": "{}", "value": count}]}
        for at, count in expected.items()
    ]
    series = [{"series": name, "values": values} for name, values in case.series.items()]
    group = {"interval": "1m", "input_series": series, "promql_expr_test": checks}
    file.write_text(
        yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [group]})
    )
    ran = subprocess.run(
        [str(PROMTOOL), "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_alert_has_a_case() -> None:
    assert {case.alert for case in CASES} == {alert["alert"] for alert in alerts()}


def test_every_alert_has_a_severity_a_summary_and_a_runbook() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbooks.md").read_text(), re.MULTILINE)
    for alert in alerts():
        name = alert["alert"]
        assert alert["labels"]["severity"] in ("critical", "warning"), name
        assert alert["annotations"]["summary"].endswith("."), name
        assert alert["annotations"]["runbook_url"] == f"docs/runbooks.md#{name.lower()}"
        assert name in headings
    assert set(headings) == {alert["alert"] for alert in alerts()}


@needs_promtool
def test_the_rules_are_valid() -> None:
    ran = subprocess.run(
        [str(PROMTOOL), "check", "rules", str(RULES)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
