"""What each setting is, its unit, its default, its bounds, and which values do not go together.

Messages of the checks here reach a terminal: none may quote a credential. After the start, only
`UpstreamSettings.read_api_key` still looks at the world.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from yarl import URL

Host = Annotated[str, Field(min_length=1)]  # an empty one would listen on every address
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=7 * 24 * 3600)]
Bytes = Annotated[int, Field(ge=1024, le=64 * 2**30)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]


class Section(BaseModel):
    """Base of every section: immutable, and a key nobody knows is an error, not a shrug."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True)


class ServerSettings(Section):
    """Where we listen, and how long we bear with a client."""

    host: Host = "127.0.0.1"
    port: Port = 9000
    admin_host: Host = "127.0.0.1"
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
    """The same, from a file that nobody but its owner may read."""
    api: Literal["auto", "responses", "chat"] = "auto"
    """What it speaks: `/responses`, or `/chat/completions` only. `auto` asks it once."""
    developer_role: bool = False
    """Chat: it knows the role `developer`; else such messages are sent as `system`."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Chat: its name for the limit on generated tokens."""
    reasoning_field: Literal["none", "reasoning_content", "reasoning"] = "none"
    """Chat: where the reasoning of earlier turns goes in a message, if it wants it back."""
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
        try:
            url = URL(value)
        except ValueError:  # yarl's own words may quote a password
            raise ValueError("must be an http:// or https:// URL with a host") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError("must be an http:// or https:// URL with a host")
        if url.query_string or url.fragment:
            raise ValueError("must have no query and no fragment")
        if url.user is not None or url.password is not None:
            raise ValueError("must not carry a credential; use api_key_file or BACKBURNER_UPSTREAM__API_KEY")
        return value.rstrip("/")

    @field_validator("api_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(_checked_key(value.get_secret_value()))

    @field_validator("api_key_file")
    @classmethod
    def _holds_a_key(cls, value: Path | None) -> Path | None:
        if value is not None:
            _key_in(value)
        return value

    def read_api_key(self) -> str | None:
        """The key to send to the model server, or None; a key file is read anew by each call.

        Raises:
            ValueError: The key file was fine at start and no longer is; the text has no secret in it.
        """
        if self.api_key_file is not None:
            return _key_in(self.api_key_file)
        return self.api_key.get_secret_value() if self.api_key is not None else None


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

    @model_validator(mode="after")
    def _fits_together(self) -> Settings:
        if found := list(_conflicts(self)):
            raise ConflictError(found)
        return self


# Helpers of the models.

Conflict = tuple[tuple[str, str], str]  # two settings, and why they cannot both be

_NEVER_LARGER = (
    ("background.event_bytes_max", "background.events_bytes_max", "one event is never larger than all"),
    ("background.events_bytes_max", "store.database_bytes_max", "one job would not fit the database"),
    ("background.body_bytes_max", "store.database_bytes_max", "one body would not fit the database"),
    ("background.body_bytes_max", "server.body_bytes_max", "the server refuses such a body first"),
    ("background.queue_per_tenant_max", "background.queue_max", "the whole queue is full first"),
    ("stream.readers_per_response_max", "stream.readers_max", "the limit on all readers is met first"),
)


class ConflictError(ValueError):
    """Settings that contradict each other, all of them; pydantic would carry only one message."""

    def __init__(self, found: list[Conflict]) -> None:
        super().__init__("; ".join(reason for _, reason in found))
        self.found = found


def _conflicts(settings: Settings) -> Iterator[Conflict]:
    """What is fine alone but not together, because one of the two could never take effect."""
    server, upstream = settings.server, settings.upstream
    for small, large, why in _NEVER_LARGER:
        a, b = (attrgetter(name)(settings) for name in (small, large))
        if a > b:
            yield (small, large), f"{small} ({a}) is larger than {large} ({b}): {why}"
    if upstream.api_key is not None and upstream.api_key_file is not None:
        both = ("upstream.api_key", "upstream.api_key_file")
        yield both, f"{both[0]} and {both[1]} are both given: only one key can be sent"
    hosts = _addresses(server.host), _addresses(server.admin_host)
    if server.port == server.admin_port != 0 and (hosts[0] & hosts[1] or _ANY & (hosts[0] | hosts[1])):
        both = ("server.port", "server.admin_port")
        yield both, f"{both[0]} and {both[1]} are both {server.port} on one host: each needs its own"
    url = URL(upstream.url)
    target = _addresses(url.host or "")
    for name, host, port in zip(("port", "admin_port"), hosts, (server.port, server.admin_port), strict=True):
        if port == url.port and (target & host or (_ANY & host and target & (_ANY | _LOOPBACK))):
            yield (
                ("upstream.url", f"server.{name}"),
                f"upstream.url is where server.{name} ({port}) listens: the gateway would call itself",
            )


_ANY = frozenset({"0.0.0.0", "::"})  # noqa: S104  (compared with, not bound)
_LOOPBACK = frozenset({"127.0.0.1", "::1"})


def _addresses(host: str) -> frozenset[str]:
    return _LOOPBACK if host.lower() == "localhost" else frozenset({host.lower().strip("[]")})


def _checked_key(text: str) -> str:
    key = text.strip()
    if not re.fullmatch(r"[!-~]+", key):
        raise ValueError("must be one line of printable ASCII without spaces, and not empty")
    return key


def _key_in(file: Path) -> str:
    try:
        mode = file.stat().st_mode
        if not stat.S_ISREG(mode):
            raise ValueError("is not a regular file")
        if mode & stat.S_IROTH:  # the group may: so Kubernetes hands secrets to a pod
            raise ValueError(f"can be read by everybody (mode {stat.S_IMODE(mode):04o}): chmod 600 it")
        return _checked_key(file.read_text(encoding="ascii", errors="replace"))
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
