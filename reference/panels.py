"""The panels of the dashboards. The title of each is the question that it answers.

Every panel is by backend, replica or instance, so that one that is saturated is never averaged away.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Panel:
    """Attributes:
    title: The question.
    queries: PromQL, by how Grafana writes each series.
    about: Where to look next.
    """

    title: str
    queries: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    about: str = ""
    width: int = 8


_B = 'backend=~"$backend"'
_ALERTS = "docs/runbooks.md has a section for each."


def _quantiles(metric: str, by: str, selector: str, *shares: int) -> dict[str, str]:
    """Quantiles of a histogram; the legend is the label and the quantile."""
    return {
        f"{{{{{by}}}}} p{share}": f"histogram_quantile({share / 100:g}, "
        f"sum by ({by}, le) (rate({metric}_bucket{{{selector}}}[$__rate_interval])))"
        for share in shares
    }


OVERVIEW = (
    Panel("Does every gateway answer?", {"{{instance}}": 'up{job="backburner"}'}, kind="stat", width=4),
    Panel(
        "Which alerts fire?",
        {"{{alertname}} {{backend}} {{endpoint}}": 'ALERTS{alertname=~"Backburner.*", alertstate="firing"}'},
        kind="stat",
        about=_ALERTS,
        width=12,
    ),
    Panel(
        "Is the store well?",
        {"{{instance}} {{state}}": "backburner_store_state == 1"},
        kind="stat",
        about="Anything but ok: see the dashboard of the store.",
        width=4,
    ),
    Panel("Which version runs?", {"{{version}}": "backburner_build_info"}, kind="stat", width=4),
    Panel(
        "How long has the oldest response waited?",
        {"{{backend}}": f"max by (backend) (backburner_jobs_waiting_oldest_seconds{{{_B}}})"},
        "s",
        about="It rises while a backend is down, full or held back: the next panel says which.",
    ),
    Panel(
        "What do waiting responses wait for?",
        {"{{backend}} {{reason}}": f"max by (backend, reason) (backburner_jobs_waiting{{{_B}}}) > 0"},
        about="slot: the backend is full. breaker: it is down. share: one caller floods. docs/metrics.md has all.",
    ),
    Panel(
        "How full is each backend?",
        {
            "{{backend}}": f"sum by (backend) (backburner_backend_running{{{_B}}}) "
            f"/ (sum by (backend) (backburner_backend_slots{{{_B}}}) > 0)"
        },
        "percentunit",
    ),
    Panel(
        "How long do responses wait before they start?",
        _quantiles("backburner_queue_wait_seconds", "backend", _B, 50, 95),
        "s",
    ),
    Panel(
        "How many come in, and how many end?",
        {
            "{{backend}} accepted": f"sum by (backend) (rate(backburner_jobs_accepted_total{{{_B}}}[$__rate_interval]))",
            "{{backend}} {{outcome}}": "sum by (backend, outcome) "
            f"(rate(backburner_jobs_finished_total{{{_B}}}[$__rate_interval]))",
        },
        "reqps",
    ),
    Panel(
        "Why do responses fail?",
        {
            "{{backend}} {{code}}": "sum by (backend, code) "
            f'(rate(backburner_jobs_finished_total{{{_B}, outcome="failed"}}[$__rate_interval]))'
        },
        "reqps",
        about="docs/error-codes.md says what each code means.",
    ),
    Panel(
        "Who is refused for lack of room?",
        {"{{reason}}": "sum by (reason) (rate(backburner_creates_refused_total[$__rate_interval]))"},
        "reqps",
        about="tenant_queue_full: one caller floods; the log line caller_refused names it. queue_full: everybody.",
    ),
    Panel(
        "Which errors do clients get from the gateway itself?",
        {"{{status}}": "sum by (status) (rate(backburner_requests_refused_total[$__rate_interval]))"},
        "reqps",
    ),
    Panel(
        "What is passed through?",
        {"{{status}}": "sum by (status) (rate(backburner_passthrough_requests_total[$__rate_interval]))"},
        "reqps",
    ),
    Panel(
        "Do webhooks arrive?",
        {
            "{{endpoint}} waiting": "max by (endpoint) (backburner_webhook_waiting)",
            "{{endpoint}} down": "max by (endpoint) (backburner_webhook_down)",
        },
        about="`backburner webhooks` says what each receiver answered.",
    ),
    Panel(
        "How late are webhooks?",
        {"{{endpoint}}": "max by (endpoint) (backburner_webhook_oldest_seconds)"},
        "s",
    ),
    Panel(
        "Has the process time for its work?",
        {
            **_quantiles("backburner_loop_lag_seconds", "instance", "", 99),
            "{{instance}} CPU": 'rate(process_cpu_seconds_total{job="backburner"}[$__rate_interval])',
        },
        "s",
        about="Lag over 0.1 s, or a CPU near 1: one core is all that a process can use.",
    ),
)

BACKENDS = (
    Panel(
        "Which replicas take calls?",
        {"{{backend}}/{{replica}}": f"backburner_replica_up{{{_B}}}"},
        about="0: down, or its breaker is open. The log line replica says what the check found.",
    ),
    Panel(
        "What did the last health check find?",
        {"{{backend}}/{{replica}} {{result}}": f"backburner_replica_check{{{_B}}} == 1"},
    ),
    Panel(
        "Which replicas are left alone, or rest?",
        {
            "{{backend}}/{{replica}} breaker": f"backburner_breaker_open{{{_B}}}",
            "{{backend}}/{{replica}} rests": f"backburner_replica_resting{{{_B}}}",
        },
    ),
    Panel(
        "How many run, and how many may?",
        {
            "{{backend}} running": f"sum by (backend) (backburner_backend_running{{{_B}}})",
            "{{backend}} slots": f"sum by (backend) (backburner_backend_slots{{{_B}}})",
        },
        about="Slots fall while replicas are down, and while plain requests go first (backfill).",
    ),
    Panel(
        "What holds the queue up?",
        {"{{backend}} {{reason}}": f"max by (backend, reason) (backburner_jobs_waiting{{{_B}}})"},
    ),
    Panel(
        "What does an autoscaler see?",
        {
            "{{backend}}": "max by (backend) (backburner_backend_demand"
            f"{{{_B}}} - backburner_backend_running{{{_B}}}) + sum by (backend) (backburner_backend_running{{{_B}}})"
        },
    ),
    Panel(
        "How long until the first output?", _quantiles("backburner_ttft_seconds", "backend", _B, 50, 95), "s"
    ),
    Panel("How long do runs take?", _quantiles("backburner_run_seconds", "backend", _B, 50, 95), "s"),
    Panel(
        "How long until the backend's head?",
        _quantiles("backburner_upstream_head_seconds", "kind", "", 50, 95),
        "s",
    ),
    Panel(
        "Where are calls under way?",
        {"{{backend}}/{{replica}} {{kind}}": f"backburner_replica_calls{{{_B}}}"},
    ),
    Panel(
        "Which responses hang?",
        {"{{backend}}": f"max by (backend) (backburner_running_silent{{{_B}}})"},
        about="The log line job with to=silent names each of them.",
    ),
    Panel(
        "Which calls fail below HTTP?",
        {
            "{{kind}} {{reason}}": "sum by (kind, reason) (rate(backburner_upstream_errors_total[$__rate_interval]))"
        },
        "reqps",
    ),
    Panel(
        "What is tried again, and why?",
        {
            "{{backend}} {{reason}}": "sum by (backend, reason) "
            f"(rate(backburner_upstream_retries_total{{{_B}}}[$__rate_interval]))"
        },
        "reqps",
    ),
    Panel(
        "Is the retry budget spent?",
        {
            "{{backend}}": "sum by (backend) "
            f"(rate(backburner_upstream_retries_refused_total{{{_B}}}[$__rate_interval]))"
        },
        "reqps",
    ),
    Panel(
        "What did backends refuse, or send that has no place?",
        {
            "{{backend}} {{lesson}}": f"sum by (backend, lesson) (backburner_lessons_total{{{_B}}})",
            "{{backend}} {{field}}": f"sum by (backend, field) (backburner_unmapped_fields_total{{{_B}}})",
            "{{backend}} {{tool}}": f"sum by (backend, tool) (backburner_omitted_tools_total{{{_B}}})",
        },
    ),
)

STORE = (
    Panel(
        "In which state is the store?", {"{{instance}} {{state}}": "backburner_store_state == 1"}, kind="stat"
    ),
    Panel(
        "How full is it?",
        {"{{instance}}": "backburner_store_used_ratio"},
        "percentunit",
        about="At 0.9 creates are refused.",
    ),
    Panel("How large are its files?", {"{{instance}} {{file}}": "backburner_database_bytes"}, "bytes"),
    Panel(
        "How long does a commit take?",
        _quantiles("backburner_commit_seconds", "instance", "", 50, 99),
        "s",
        about="Every create waits for one. p99 over 0.1 s: the disk is slow, or shared.",
    ),
    Panel(
        "How many operations share a commit?",
        _quantiles("backburner_commit_operations", "instance", "", 50, 99),
        about="Large groups keep a slow disk usable.",
    ),
    Panel(
        "How many commits, and how many events?",
        {
            "{{instance}} commits": "rate(backburner_commit_seconds_count[$__rate_interval])",
            "{{instance}} events": "rate(backburner_events_total[$__rate_interval])",
        },
        "ops",
    ),
    Panel(
        "Which errors does the database give?",
        {
            "{{instance}} {{kind}}": "sum by (instance, kind) (rate(backburner_store_errors_total[$__rate_interval]))"
        },
        "ops",
    ),
    Panel(
        "Was it damaged, deleted or blocked?",
        {
            "{{instance}} recreated": "backburner_store_recreated_total",
            "{{instance}} restored": "backburner_store_restored_total",
            "{{instance}} log too large": "backburner_store_log_too_large_total",
        },
    ),
    Panel("How many responses are kept?", {"{{status}}": "max by (status) (backburner_jobs)"}),
    Panel(
        "Are expired ones purged?",
        {"{{instance}}": "rate(backburner_responses_swept_total[$__rate_interval])"},
        "ops",
    ),
    Panel(
        "How much output is in memory?",
        {
            "{{instance}} bytes": "backburner_output_bytes",
            "{{instance}} resident": 'process_resident_memory_bytes{job="backburner"}',
        },
        "bytes",
    ),
    Panel(
        "How many readers follow streams?",
        {
            "{{instance}} readers": "backburner_followers",
            "{{instance}} pushed to": "backburner_pushed_responses",
            "{{instance}} open files": 'process_open_fds{job="backburner"}',
        },
    ),
)
