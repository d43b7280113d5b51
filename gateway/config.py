"""The settings: what each is, its unit, its default and its bounds.

One frozen object, made once at start from flags, environment, file and defaults (in that order of
precedence) by `gateway.config.load`. Nothing here reads the world after that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=7 * 24 * 3600)]
Bytes = Annotated[int, Field(ge=1024, le=64 * 2**30)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]


class Section(BaseModel):
    """Base of every section: immutable, and a key nobody knows is an error, not a shrug."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ServerSettings(Section):
    """Where we listen, and how long we bear with a client."""

    host: str = "127.0.0.1"
    port: Port = 9000
    admin_host: str = "127.0.0.1"
    admin_port: Port = 9001
    body_bytes_max: Bytes = 64 * 2**20
    """Largest body of a plain `POST /responses`; other paths stream through without a limit."""
    keepalive_timeout_s: Seconds = 75
    write_stall_timeout_s: Seconds = 30
    """A stream reader that takes no byte for this long is cut off (it can resume at its cursor)."""
    drain_timeout_s: Annotated[float, Field(ge=0, le=3600)] = 25
    """After SIGTERM, running jobs get this long to end (Kubernetes kills after 30 s)."""


class UpstreamSettings(Section):
    """The model server behind us."""

    url: str
    """Base URL as a client would use it, e.g. `http://localhost:8000/v1`."""
    api_key: SecretStr | None = None
    """Sent instead of the caller's credential. Prefer the environment or `api_key_file`."""
    api_key_file: Path | None = None
    concurrency_max: Count = 256
    """Background calls under way at once; the rest wait in the queue."""
    connect_timeout_s: Seconds = 5
    connect_attempts_max: Annotated[int, Field(ge=1, le=20)] = 3
    """Tries to connect for a background call, with jittered back-off; a plain call is tried once."""
    head_timeout_s: Seconds = 120
    """Background: from the sent request to the first byte of the answer's head."""
    plain_head_timeout_s: Seconds = 600
    """Pass-through: the same. 600 s is the official SDKs' own total."""
    idle_timeout_s: Seconds = 300
    """Longest silence between two reads of an answer."""
    lookup_timeout_s: Seconds = 10
    """For asking the backend about a response id that is not ours."""

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        from yarl import URL

        url = URL(value)
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError("must be an http:// or https:// URL with a host")
        if url.query_string or url.fragment:
            raise ValueError("must have no query and no fragment")
        if url.user is not None or url.password is not None:
            raise ValueError("must not carry a credential; use api_key_file or BACKBURNER_UPSTREAM__API_KEY")
        return value.rstrip("/")


class BackgroundSettings(Section):
    """What a background response may cost, and how long it is kept."""

    retention_s: Annotated[float, Field(gt=0, le=30 * 24 * 3600)] = 600
    """Result and events are kept this long, counted from the end of the job."""
    deadline_s: Seconds = 3600
    """A job that has not ended this long after it was accepted fails."""
    body_bytes_max: Bytes = 32 * 2**20
    event_bytes_max: Bytes = 8 * 2**20
    """Largest single event of a backend; a larger one fails the job."""
    events_bytes_max: Bytes = 64 * 2**20
    """All events of one job together; more fails the job."""
    queue_max: Count = 10_000
    queue_per_tenant_max: Count = 1_000
    flush_ms: Annotated[int, Field(ge=0, le=10_000)] = 100
    """Events nobody is watching may wait this long for their commit; watched ones do not wait."""
    unflushed_bytes_max: Bytes = 256 * 2**10
    """Per job: above this the backend is not read until a commit has caught up."""
    attempts_max: Annotated[int, Field(ge=1, le=10)] = 2
    recovery: Literal["rerun_if_silent", "never"] = "rerun_if_silent"
    store_false: Literal["reject", "accept"] = "reject"
    resume: Literal["streamed", "any"] = "streamed"
    """Which responses may be streamed by GET: those created with `stream: true`, or any."""
    partial_output: bool = False
    """Show the output so far in a GET while the response runs."""
    poll_after_ms: Annotated[int, Field(ge=100, le=60_000)] = 1_000
    """The hint sent as `openai-poll-after-ms` while a response is not finished."""


class StoreSettings(Section):
    """The one file."""

    database: Path = Path("backburner.db")
    durability: Literal["disk", "process"] = "disk"
    """`disk` survives power loss (synchronous=FULL), `process` a kill (synchronous=NORMAL)."""
    database_bytes_max: Bytes = 4 * 2**30
    readers: Annotated[int, Field(ge=1, le=16)] = 2
    sweep_interval_s: Seconds = 5
    busy_timeout_s: Seconds = 5


class StreamSettings(Section):
    """Readers of event streams."""

    heartbeat_s: Seconds = 15
    readers_per_response_max: Count = 16
    readers_max: Count = 20_000
    page_bytes_max: Bytes = 256 * 2**10
    """One read from the store, and one write to a reader."""
    tail_bytes_max: Bytes = 256 * 2**10
    """Committed events kept in memory per watched response, so that live readers skip the store."""


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


class Settings(Section):
    """Everything a gateway needs to know."""

    server: ServerSettings = ServerSettings()
    upstream: UpstreamSettings
    background: BackgroundSettings = BackgroundSettings()
    store: StoreSettings = StoreSettings()
    stream: StreamSettings = StreamSettings()
    log: LogSettings = LogSettings()
