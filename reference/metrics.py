"""docs/metrics.md: the table of metrics, what their labels may say, and OpenTelemetry's names beside them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from prometheus_client import Counter, Histogram

from gateway.observe.metrics import Metric, Metrics
from reference.labels import label
from reference.tables import WRITTEN, code, table

SEMCONV = "v0.1.0"
"""Of https://github.com/open-telemetry/semantic-conventions-genai."""

OTEL = (
    (
        "gen_ai.client.operation.duration",
        "backburner_run_seconds",
        "One run with all its attempts. `backend` stands for the server address, `outcome` for the error type.",
    ),
    (
        "gen_ai.client.operation.time_to_first_chunk",
        "backburner_ttft_seconds",
        "Background calls only. From the call to the first event with output: an empty first chunk is none.",
    ),
    (
        "gen_ai.server.request.duration",
        "backburner_queue_wait_seconds, backburner_run_seconds",
        "The gateway as the server. Ours are the two parts; the sum has no histogram.",
    ),
    ("gen_ai.server.time_to_first_token", "", "The engine's own; scrape the engine."),
    ("gen_ai.server.time_per_output_token", "", "The engine's own; scrape the engine."),
    (
        "gen_ai.client.operation.time_per_output_chunk",
        "",
        "Not measured: it would cost a clock for each event.",
    ),
    ("gen_ai.client.token.usage", "", "Not counted: `usage` of each response has it."),
)
"""Name there, ours, and how ours differs."""

PROCESS = (
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
)


def sections() -> Iterator[tuple[str, list[Metric[Any]]]]:
    """The rows under the headings that the table has in its comments."""
    rows = Metrics.rows()
    for part in re.split(r"^    # -- ", inspect.getsource(Metrics), flags=re.MULTILINE)[1:]:
        heading, _, body = part.partition("\n")
        names = re.findall(r"^    (\w+) = Metric\(", body, re.MULTILINE)
        yield heading, [rows[name] for name in names]


def exposed(row: Metric[Any]) -> str:
    """The name on the page."""
    return f"{row.name}_total" if row.kind is Counter else row.name


def page() -> str:
    parts = [
        "# Metrics",
        WRITTEN,
        "`GET /metrics` on the admin port, in the text format of Prometheus. **These names are the contract**: one that "
        "changes is in the [changelog](../CHANGELOG.md). Units are base units (seconds, bytes, ratios), and in the names. "
        "No label ever holds a tenant, an id, a key or a caller's text, and each has a bounded number of values.",
        "Gauges of the queue, the database and webhooks are measured when the page is asked for. What happens to "
        "one response is in the [log](log-events.md). Dashboards and alerts over these metrics: [deploy/](../deploy/README.md).",
    ]
    for heading, rows in sections():
        parts.append(f"## {heading[0].upper()}{heading[1:]}")
        parts.append(table(("metric", "type", "labels", "what"), map(_row, rows)))
        if labels := [_label(row, name) for row in rows for name in row.labels]:
            parts.append(table(("label", "values"), dict.fromkeys(labels)))
    parts += [
        "`backburner_log_lines_dropped_total` counts log lines that nobody took in time. "
        f"Of the process, by the names of the client libraries: {code(PROCESS)}.",
        "## Buckets",
        table(("upper bounds, in seconds (or operations)", "histograms"), _buckets()),
        "## To scale on",
        "`backburner_backend_demand{backend}` is waiting + running. A backlog alone is 0 for a pool that just keeps up, and "
        "would scale it to nothing under load. While a model loads, its responses wait, and count. In a store that "
        "several processes share, one of them counts what waits, and each what it runs itself: scale on "
        "`max by (backend) (backburner_backend_demand - backburner_backend_running) + "
        "sum by (backend) (backburner_backend_running)`, which is right for one process, too. "
        "[A KEDA ScaledObject](../deploy/keda/scaledobject.yaml) does.",
        "## OpenTelemetry's names",
        f"The GenAI conventions are in [a repository of their own]"
        f"(https://github.com/open-telemetry/semantic-conventions-genai), here as of {SEMCONV}. All of its names are "
        "in *Development*, none is stable, so that the gateway does not send them. What corresponds:",
        table(
            ("convention", "ours", "difference"),
            ((f"`{name}`", code(ours.split(", ")) if ours else "–", why) for name, ours, why in OTEL),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _row(row: Metric[Any]) -> tuple[str, str, str, str]:
    return f"`{exposed(row)}`", row.kind.__name__.lower(), code(row.labels), row.help


def _label(row: Metric[Any], name: str) -> tuple[str, str]:
    metric = row.name.removeprefix("backburner_")
    found = label(metric, name)
    words = "" if not found.words or "`" in found.about else f": {code(sorted(filter(None, found.words)))}"
    is_one = label(metric, name) is label("", name) if _is_common(name) else False
    return f"`{name}`" if is_one else f"`{name}` of `{exposed(row)}`", found.about + words


def _is_common(name: str) -> bool:
    try:
        label("", name)
    except KeyError:
        return False
    return True


def _buckets() -> Iterator[tuple[str, str]]:
    found: dict[str, list[str]] = {}
    for row in Metrics.rows().values():
        if row.kind is Histogram:
            found.setdefault(" ".join(f"{bound:g}" for bound in row.buckets), []).append(row.name)
    for bounds, names in found.items():
        yield bounds, code(names)
