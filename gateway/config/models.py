"""All settings, with their units, defaults and bounds.

`backends` has those of one model server, `tenants` those of callers, `webhooks` those of deliveries,
`conflicts` says which values do not go together. After the checks, only the `read_…` of sections still look
at the world.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator

from gateway.config.backends import HttpUrlString, UpstreamSettings
from gateway.config.conflicts import ConflictError, conflicts
from gateway.config.keyfiles import checked_key, key_of_variable, read_text
from gateway.config.section import Bytes, Count, Host, Name, Origin, Port, Seconds, Section
from gateway.config.tenants import CredentialSettings, TenantSettings
from gateway.config.webhooks import RequestWebhookSettings, WebhookSettings


class ServerSettings(Section):
    """Addresses to listen on, and limits for clients."""

    host: Host = "127.0.0.1"
    port: Port = 9000
    admin_host: Host = "127.0.0.1"
    admin_port: Port = 9001
    admin_read_token_file: Path | None = None
    """Bearer token of those who may look at the admin API and the page, and change nothing."""
    admin_read_token_env: str | None = None
    """The same, from the environment variable of this name, as it is at the start."""
    body_bytes_max: Bytes = 64 * 2**20
    """Largest body of a plain `POST /responses`; other paths stream through without a limit."""
    admin_token_file: Path | None = None
    """Bearer token that the admin port requires before it changes anything or shows an address."""
    admin_token_env: str | None = None
    """The same, from the environment variable of this name, as it is at the start."""
    connections_max: Count = 20_000
    """Client connections, on each of the two ports."""
    head_bytes_max: Bytes = 64 * 2**10
    """Largest part of an unfinished request head that is kept. It bounds what a silent client can hold."""
    head_timeout_s: Seconds = 10
    """Longest time from the first byte of a request to the end of its head."""
    body_idle_timeout_s: Seconds = 30
    """Longest pause within a body."""
    body_timeout_s: Seconds = 300
    """Longest time for a whole body; time in which the backend takes none of it does not count."""
    keepalive_timeout_s: Seconds = 75
    fast_lane: bool = True
    """Relay requests that need nothing unusual without aiohttp; the same rules hold."""
    write_stall_timeout_s: Seconds = 30
    """A client that reads almost nothing for this long is cut off. A stream can resume at its cursor."""
    cors_origins: Annotated[tuple[Origin, ...], Field(max_length=256)] = ()
    """Origins whose pages may read answers in a browser; `*` is any origin."""
    cors_max_age_s: Annotated[int, Field(ge=0, le=24 * 3600)] = 600
    """How long a browser may cache the answer to a preflight."""
    cors_credentials: bool = False
    """Allow browsers to send cookies and client certificates, for a proxy in front."""
    openapi: Literal["gateway", "backend"] = "gateway"
    """Whose document `/openapi.json` serves on the public port."""
    drain_timeout_s: Annotated[float, Field(ge=0, le=3600)] = 25
    """Time for running jobs to end after SIGTERM. Kubernetes kills after 30 s."""

    _admin_token_of_environment: SecretStr | None = PrivateAttr(default=None)
    _read_token_of_environment: SecretStr | None = PrivateAttr(default=None)

    @field_validator("admin_token_file", "admin_read_token_file")
    @classmethod
    def _holds_a_token(cls, value: Path | None) -> Path | None:
        if value is not None:
            checked_key(read_text(value))
        return value

    def model_post_init(self, context: Any) -> None:
        if self.admin_token_env is not None:
            self._admin_token_of_environment = SecretStr(key_of_variable(self.admin_token_env, context))
        if self.admin_read_token_env is not None:
            self._read_token_of_environment = SecretStr(key_of_variable(self.admin_read_token_env, context))

    def read_admin_token(self) -> str | None:
        """The token of the admin port, or None. Each call reads the file again. Raises: ValueError."""
        return _token(self.admin_token_file, self._admin_token_of_environment)

    def read_admin_read_token(self) -> str | None:
        """The token of those who only look, in the same way. Raises: ValueError."""
        return _token(self.admin_read_token_file, self._read_token_of_environment)


def _token(file: Path | None, of_environment: SecretStr | None) -> str | None:
    if file is not None:
        return checked_key(read_text(file))
    return of_environment.get_secret_value() if of_environment is not None else None


class UiSettings(Section):
    """The page for operators, and the admin API under it."""

    page: bool = True
    """Serve the page `/ui` on the admin port. The API under it, `/api/v1`, is there in any case."""
    content: bool = False
    """Show requests, results and events of jobs there: prompts and answers are private."""
    refresh_s: Annotated[float, Field(ge=2, le=300)] = 2
    """How often the page asks for news while it is in front."""
    streams_max: Annotated[int, Field(ge=1, le=1000)] = 16
    """Streams of a job's events that may be open there."""


class BackgroundSettings(Section):
    """Limits of background responses, and how long they are kept."""

    retention_s: Annotated[float, Field(gt=0, le=30 * 24 * 3600)] = 600
    """How long result and events are kept, from the end of the job."""
    deadline_s: Seconds = 3600
    """A job that has not ended within this time of its acceptance fails."""
    body_bytes_max: Bytes = 32 * 2**20
    event_bytes_max: Bytes = 8 * 2**20
    """Largest single event of a backend; a larger one fails the job."""
    events_bytes_max: Bytes = 64 * 2**20
    """All events of one job together; more fails the job."""
    queue_max: Count = 10_000
    queue_per_tenant_max: Count = 1_000
    flush_ms: Annotated[int, Field(ge=0, le=10_000)] = 100
    """Longest wait of unwatched events for a common commit. Watched events do not wait."""
    unflushed_bytes_max: Bytes = 256 * 2**10
    """Uncommitted events of one job above which its backend is not read until the disk catches up."""
    unflushed_total_bytes_max: Bytes = 8 * 2**20
    """The same for all jobs together."""
    output_total_bytes_max: Bytes = 96 * 2**20
    """Output of all running responses in memory. Above it, responses with more than their share wait for
    others to end; the largest one goes on."""
    silent_after_s: Annotated[float, Field(gt=0, le=3600)] = 30
    """After this silence of its backend a running job is logged and counted. It goes on."""
    store_wait_s: Annotated[float, Field(ge=0, le=3600)] = 30
    """How long a running job waits for a store that cannot write; then it fails."""
    attempts_max: Annotated[int, Field(ge=1, le=10)] = 2
    recovery: Literal["rerun_if_silent", "never"] = "rerun_if_silent"
    store_false: Literal["reject", "accept"] = "reject"
    resume: Literal["streamed", "any"] = "streamed"
    """Which responses may be streamed by GET: those created with `stream: true`, or any."""
    partial_output: bool = False
    """Show the output so far in a GET while the response runs."""
    adopt_unacked_retry: bool = False
    """Answer the retry of a create with the response of the first try, if no request has named it yet."""
    adopt_within_s: Seconds = 60
    """Only responses accepted within this time are adopted."""
    poll_after_ms: Annotated[int, Field(ge=100, le=60_000)] = 1_000
    """Sent as `openai-poll-after-ms` while a response is not finished."""

    @property
    def calls_max(self) -> int:
        """Calls of a backend that one job may cost."""
        return self.attempts_max if self.recovery == "rerun_if_silent" else 1

    @property
    def handed_over_max(self) -> int:
        """The same at a handover, where the call that is given up counts for nothing."""
        return self.calls_max + (self.recovery == "rerun_if_silent")


class StoreSettings(Section):
    """The database file; or the PostgreSQL database that several gateways share."""

    database: Path = Path("backburner.db")
    url: SecretStr | None = None
    """`postgresql://user:password@host/database`, in place of a file."""
    pooler: bool = False
    """The URL leads to a pooler in transaction mode: no prepared statements, settings or notifications."""
    connect_timeout_s: Seconds = 2
    """Longest wait for a new connection to PostgreSQL."""
    peer_listen: str | None = None
    """`host:port` where other gateways get events that are committed here; port 0: any that is free."""
    peer_address: str | None = None
    """The same as others reach it; without it, `peer_listen`."""
    peer_links_max: Count = 1000
    """Connections of other gateways; more are closed."""
    peer_unsent_bytes_max: Bytes = 8 * 2**20
    """Events that another gateway leaves untaken before it is cut off, and reads the database."""
    durability: Literal["disk", "process"] = "disk"
    """`disk` survives power loss (synchronous=FULL), `process` a kill (synchronous=NORMAL)."""
    database_bytes_max: Bytes = 4 * 2**30
    readers: Annotated[int, Field(ge=1, le=16)] = 2
    ballast_bytes: Annotated[int, Field(ge=0, le=2**30)] = 16 * 2**20
    """Space reserved beside the database, so that deleting is possible on a full volume."""
    sweep_interval_s: Seconds = 5
    busy_timeout_s: Seconds = 5
    waiting_bytes_max: Bytes = 64 * 2**20
    """New responses that may wait for their commit. More are refused."""
    wal_truncate_bytes: Bytes = 64 * 2**20
    """A write-ahead log above this size is truncated as soon as no reader holds it."""
    wal_bytes_max: Bytes = 256 * 2**20
    """Above this size the read that holds the log is interrupted."""
    check_bytes_max: Annotated[int, Field(ge=0, le=2**50)] = 2**28
    """A larger file is checked while it is in use, not before the start."""
    found_within_ms: Annotated[int, Field(ge=0, le=60_000)] = 100
    """New responses are accepted only if the file was seen in its place within this time."""
    on_corrupt: Literal["refuse", "recreate"] = "refuse"
    """At the start, refuse a damaged file, or set it aside and begin with a new one."""
    allow_fuse: bool = False
    """Trust a FUSE or 9P file system to lock and to flush."""

    @field_validator("url")
    @classmethod
    def _names_a_database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.match(r"postgres(ql)?://[^\s]*/[^/\s?]+", value.get_secret_value()):
            raise ValueError("must be postgresql://user@host/database")
        return value

    @field_validator("peer_listen", "peer_address")
    @classmethod
    def _names_a_port(cls, value: str | None) -> str | None:
        named = re.fullmatch(r"(?:\[[0-9a-fA-F:.]+\]|[^\s:\[\]/]+):([0-9]{1,5})", value or "any:0")
        if named is None:
            raise ValueError("must be host:port")
        if int(named[1]) > 65535:
            raise ValueError("must end with a port, which is 65535 at most")
        return value

    @property
    def is_shared(self) -> bool:
        """Several gateways may use it at once."""
        return self.url is not None

    @property
    def scratch(self) -> Path:
        """The directory of what is put aside for a while: beside the database file, if there is one."""
        return Path(tempfile.gettempdir()) if self.is_shared else self.database.absolute().parent

    @field_validator("database")
    @classmethod
    def _names_a_file(cls, value: Path) -> Path:
        if value.is_dir():  # so is the empty path: the working directory
            raise ValueError("must name a file, not a directory")
        return value


class StreamSettings(Section):
    """Readers of event streams."""

    heartbeat_s: Seconds = 15
    readers_per_response_max: Count = 16
    readers_per_tenant_max: Count = 256
    readers_max: Count = 20_000
    page_bytes_max: Bytes = 64 * 2**10
    """Bytes of one read from the store. A stalled reader holds as much in memory."""
    tail_bytes_max: Bytes = 256 * 2**10
    """Committed events kept in memory per watched response, so that live readers skip the store."""
    tails_bytes_max: Bytes = 64 * 2**20
    """The same for all responses together."""


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"
    """`auto`: text on a terminal, else JSON."""
    waiting_bytes_max: Bytes = 4 * 2**20
    """Lines that may wait for the reader of stderr. More are dropped and counted."""
    flush_timeout_s: Annotated[float, Field(ge=0, le=60)] = 2
    """How long the process waits at its end for the last lines to be read."""


class TracingSettings(Section):
    """Spans of background responses, sent by OTLP over HTTP. Needs the extra `backburner[otel]`."""

    endpoint: HttpUrlString | None = None
    """Where traces go, e.g. http://collector:4318/v1/traces. Without it nothing is traced."""
    service_name: Annotated[str, Field(min_length=1, max_length=255)] = "backburner"
    sampled_percent: Annotated[float, Field(ge=0, le=100)] = 100
    """Of creates whose caller has not decided it; a run is traced if its create was."""
    waiting_spans_max: Annotated[int, Field(ge=512, le=1_000_000)] = 4096
    """Spans that wait to be sent. More are dropped."""
    export_timeout_s: Seconds = 10
    """Longest time in which the collector takes some."""


class ConversationSettings(Section):
    """Limits and choices for conversations."""

    record_foreground: Literal["auto"] | bool = "auto"
    """Which plain responses are recorded: translated ones (`auto`), all, or none."""
    references_bytes_max: Bytes = 64 * 2**20
    """Stored responses that may be searched for the items that one request names. More is refused."""


class Settings(Section):
    """Everything a gateway needs to know."""

    dialect: Literal["openai", "mka1", "pharia"] = "openai"
    """The variant of the public API that clients see."""
    default_backend: Name | None = None
    """The backend of requests that no backend's `models` match."""
    server: ServerSettings = ServerSettings()
    upstream: UpstreamSettings | None = None
    """The only backend; None if `backends` are given."""
    backends: Annotated[dict[Name, UpstreamSettings], Field(max_length=256)] = Field(default_factory=dict)
    """Several backends by name, in the order in which their `models` are tried."""
    tenants: TenantSettings = TenantSettings()
    credentials: CredentialSettings = CredentialSettings()
    background: BackgroundSettings = BackgroundSettings()
    conversations: ConversationSettings = ConversationSettings()
    store: StoreSettings = StoreSettings()
    stream: StreamSettings = StreamSettings()
    webhooks: WebhookSettings = WebhookSettings()
    request_webhooks: RequestWebhookSettings = RequestWebhookSettings()
    ui: UiSettings = UiSettings()
    tracing: TracingSettings = TracingSettings()
    log: LogSettings = LogSettings()

    @property
    def all_backends(self) -> dict[str, UpstreamSettings]:
        """The backends by name; a single one is called `default`."""
        return {"default": self.upstream} if self.upstream is not None else self.backends

    @model_validator(mode="after")
    def _fits_together(self) -> Settings:
        if found := list(conflicts(self)):
            raise ConflictError(found)
        return self
