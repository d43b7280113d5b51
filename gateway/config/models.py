"""What each setting is, its unit, its default and its bounds.

`backends` has those of one model server, `tenants` those of callers, `webhooks` those of deliveries,
`conflicts` says which values do not go together. After the checks, only the `read_…` of sections still look
at the world.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator

from gateway.config.backends import UpstreamSettings
from gateway.config.conflicts import ConflictError, conflicts
from gateway.config.keyfiles import checked_key, key_of_variable, read_text
from gateway.config.section import Bytes, Count, Host, Name, Origin, Port, Seconds, Section
from gateway.config.tenants import CredentialSettings, TenantSettings
from gateway.config.webhooks import RequestWebhookSettings, WebhookSettings


class ServerSettings(Section):
    """Where we listen, and how long we bear with a client."""

    host: Host = "127.0.0.1"
    port: Port = 9000
    admin_host: Host = "127.0.0.1"
    admin_port: Port = 9001
    body_bytes_max: Bytes = 64 * 2**20
    """Largest body of a plain `POST /responses`; other paths stream through without a limit."""
    admin_token_file: Path | None = None
    """What the admin port asks for, as a bearer token, before it changes anything or shows an address."""
    admin_token_env: str | None = None
    """The same, from the environment variable of this name, as it is at the start."""
    connections_max: Count = 20_000
    """Client connections, on each of the two ports."""
    head_bytes_max: Bytes = 64 * 2**10
    """Of a head that comes piece by piece: what a client can make us keep without asking for anything."""
    head_timeout_s: Seconds = 10
    """From the first byte of a request to the end of its head."""
    body_idle_timeout_s: Seconds = 30
    """A body of which nothing comes for this long is given up."""
    body_timeout_s: Seconds = 300
    """For all of a body, time in which the backend takes none of it left out."""
    keepalive_timeout_s: Seconds = 75
    write_stall_timeout_s: Seconds = 30
    """A client that takes next to nothing for this long is cut off (a reader can resume at its cursor)."""
    cors_origins: Annotated[tuple[Origin, ...], Field(max_length=256)] = ()
    """Pages of these origins may read answers in a browser; `*`: of any."""
    cors_max_age_s: Annotated[int, Field(ge=0, le=24 * 3600)] = 600
    """A browser need not ask again for so long."""
    cors_credentials: bool = False
    """Browsers may send cookies and certificates, which a proxy in front may ask for."""
    openapi: Literal["gateway", "backend"] = "gateway"
    """Whose document `/openapi.json` is on the public port."""
    drain_timeout_s: Annotated[float, Field(ge=0, le=3600)] = 25
    """After SIGTERM, running jobs get this long to end (Kubernetes kills after 30 s)."""

    _admin_token_of_environment: SecretStr | None = PrivateAttr(default=None)

    @field_validator("admin_token_file")
    @classmethod
    def _holds_a_token(cls, value: Path | None) -> Path | None:
        if value is not None:
            checked_key(read_text(value))
        return value

    def model_post_init(self, context: Any) -> None:
        if self.admin_token_env is not None:
            self._admin_token_of_environment = SecretStr(key_of_variable(self.admin_token_env, context))

    def read_admin_token(self) -> str | None:
        """What the admin port asks for, or None; a file is read anew by each call. Raises: ValueError."""
        if self.admin_token_file is not None:
            return checked_key(read_text(self.admin_token_file))
        token = self._admin_token_of_environment
        return token.get_secret_value() if token is not None else None


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
    unflushed_total_bytes_max: Bytes = 8 * 2**20
    """The same for all together."""
    output_total_bytes_max: Bytes = 96 * 2**20
    """Output of all running responses in memory: above this, those with more than their share wait for others
    to end, all but the largest."""
    silent_after_s: Annotated[float, Field(gt=0, le=3600)] = 30
    """A running job whose backend sends nothing for this long is named in the log, and counted."""
    store_wait_s: Annotated[float, Field(ge=0, le=3600)] = 30
    """A running job keeps its events for this long while the store cannot take them; then it fails."""
    attempts_max: Annotated[int, Field(ge=1, le=10)] = 2
    recovery: Literal["rerun_if_silent", "never"] = "rerun_if_silent"
    store_false: Literal["reject", "accept"] = "reject"
    resume: Literal["streamed", "any"] = "streamed"
    """Which responses may be streamed by GET: those created with `stream: true`, or any."""
    partial_output: bool = False
    """Show the output so far in a GET while the response runs."""
    adopt_unacked_retry: bool = False
    """A create that says it is a retry gets the response of the same request whose answer was lost."""
    adopt_within_s: Seconds = 60
    """Only responses that were accepted so recently are adopted."""
    acknowledge_after_ms: Annotated[int, Field(ge=10, le=10_000)] = 250
    """An answer counts as arrived if its connection is open this long after the acceptance. The official SDKs
    wait at least 375 ms before they ask again."""
    poll_after_ms: Annotated[int, Field(ge=100, le=60_000)] = 1_000
    """The hint sent as `openai-poll-after-ms` while a response is not finished."""


class StoreSettings(Section):
    """The one file."""

    database: Path = Path("backburner.db")
    durability: Literal["disk", "process"] = "disk"
    """`disk` survives power loss (synchronous=FULL), `process` a kill (synchronous=NORMAL)."""
    database_bytes_max: Bytes = 4 * 2**30
    readers: Annotated[int, Field(ge=1, le=16)] = 2
    ballast_bytes: Annotated[int, Field(ge=0, le=2**30)] = 16 * 2**20
    """Kept back beside the database, so that there is room to delete on a full volume."""
    sweep_interval_s: Seconds = 5
    busy_timeout_s: Seconds = 5
    waiting_bytes_max: Bytes = 64 * 2**20
    """New responses that wait for their commit; more are refused."""
    wal_truncate_bytes: Bytes = 64 * 2**20
    """A write-ahead log above this is emptied as soon as nobody reads an older state."""
    wal_bytes_max: Bytes = 256 * 2**20
    """Above this the read that keeps it from being emptied is broken off."""
    check_bytes_max: Annotated[int, Field(ge=0, le=2**50)] = 2**28
    """A larger file is checked while it is in use, not before."""
    found_within_ms: Annotated[int, Field(ge=0, le=60_000)] = 100
    """Nothing new is accepted unless the file was found in its place so recently."""
    on_corrupt: Literal["refuse", "recreate"] = "refuse"
    """What is done at the start about a damaged file: nothing, or it is set aside for a new one."""
    allow_fuse: bool = False
    """Trust a FUSE or 9P file system to lock and flush."""

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
    page_bytes_max: Bytes = 32 * 2**10
    """One read from the store. A reader that takes nothing holds as much in memory."""
    tail_bytes_max: Bytes = 256 * 2**10
    """Committed events kept in memory per watched response, so that live readers skip the store."""
    tails_bytes_max: Bytes = 64 * 2**20
    """The same, of all responses together."""


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"
    """`auto`: text on a terminal, else JSON."""
    waiting_bytes_max: Bytes = 4 * 2**20
    """Of lines that whoever reads stderr has not taken yet; more are dropped and counted."""
    flush_timeout_s: Annotated[float, Field(ge=0, le=60)] = 2
    """The end of the process waits so long for the last lines to be taken."""


class ConversationSettings(Section):
    """What is kept of conversations."""

    record_foreground: Literal["auto"] | bool = "auto"
    """Which plain responses are recorded: those that are made here of chat answers (auto), all, or none."""
    references_bytes_max: Bytes = 64 * 2**20
    """Of stored responses in which the items are that one request names; more is refused."""


class Settings(Section):
    """Everything a gateway needs to know."""

    dialect: Literal["openai", "mka1", "pharia"] = "openai"
    """Whose variant of the public API clients are answered in."""
    default_backend: Name | None = None
    """The backend of requests that no backend's `models` match."""
    server: ServerSettings = ServerSettings()
    upstream: UpstreamSettings | None = None
    """The only backend; None if `backends` are given."""
    backends: Annotated[dict[Name, UpstreamSettings], Field(max_length=256)] = Field(default_factory=dict)
    """Several, by name, in the order in which their `models` are tried."""
    tenants: TenantSettings = TenantSettings()
    credentials: CredentialSettings = CredentialSettings()
    background: BackgroundSettings = BackgroundSettings()
    conversations: ConversationSettings = ConversationSettings()
    store: StoreSettings = StoreSettings()
    stream: StreamSettings = StreamSettings()
    webhooks: WebhookSettings = WebhookSettings()
    request_webhooks: RequestWebhookSettings = RequestWebhookSettings()
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
