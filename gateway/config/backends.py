"""One backend: its model servers, its models, and the limits of calls to it.

Messages of the checks here reach a terminal: none may quote a credential, a header or a URL. What does
not go together is judged in `conflicts`.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, SecretStr, ValidationInfo, field_validator
from yarl import URL

from gateway.config.keyfiles import checked_key, key_of_variable, read_text
from gateway.config.section import Count, Seconds, Section
from gateway.wire.http.headers import HOP_BY_HOP

JSON_DEPTH_MAX = 20


def _is_http(value: str) -> str:
    try:
        url = URL(value)
    except ValueError:  # yarl's own words may quote a password
        raise ValueError("must be an http:// or https:// URL with a host") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("must be an http:// or https:// URL with a host")
    if url.query_string or url.fragment:
        raise ValueError("must have no query and no fragment")
    for route in ("/responses", "/chat/completions", "/completions", "/models"):
        if url.path.rstrip("/").endswith(route):
            base = url.path.rstrip("/").removesuffix(route)
            raise ValueError(f"must be the base URL, without {route}: its path is {base or '/'}")
    if url.user is not None or url.password is not None:
        raise ValueError("must not carry a credential; use api_key_file or api_key_env")
    return value.rstrip("/")


HttpUrlString = Annotated[str, AfterValidator(_is_http)]
ModelName = Annotated[str, Field(min_length=1, max_length=256)]
FieldName = Annotated[str, Field(min_length=1, max_length=64)]


class UpstreamSettings(Section):
    """One backend: a model server, or several that serve the same models."""

    url: HttpUrlString
    """Base URL as a client would use it, e.g. `http://localhost:8000/v1`."""
    replicas: Annotated[tuple[HttpUrlString, ...], Field(max_length=256)] = ()
    """More base URLs that serve the same models; calls are balanced over `url` and these."""
    models: Annotated[tuple[ModelName, ...], Field(min_length=1, max_length=1000)] = ("*",)
    """Patterns of the models that this backend serves: fnmatch, case-sensitive."""
    rename: dict[ModelName, ModelName] = Field(default_factory=dict)
    """The backend's names of models, by the names that clients use."""
    api_key: SecretStr | None = None
    """Sent instead of the caller's credential. Prefer `api_key_file` or `api_key_env`."""
    api_key_file: Path | None = None
    """The same, from a file that only its owner may read."""
    api_key_env: str | None = None
    """The same, from the environment variable of this name, as it is at the start."""
    check_credentials: bool = True
    """Try a new caller's credential on the backend before a background response is accepted."""
    cache_salt: bool = False
    """Send a `cache_salt` per tenant, so that no tenant can measure what others asked."""
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    """Headers of every call to the backend. They replace the caller's of the same names."""
    api: Literal["auto", "responses", "chat"] = "auto"
    """Its API: `/responses`, or `/chat/completions` only. `auto` asks the backend once."""
    developer_role: bool = False
    """Chat: it knows the role `developer`; else such messages are sent as `system`."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Chat: its name for the limit on generated tokens."""
    unsupported_tools: Literal["omit", "refuse"] = "omit"
    """Chat: tools that it cannot run, as `web_search`: `omit` serves a request without them and says so."""
    think_tags: bool = False
    """Chat: its answers have thoughts in the text, as `<think>…</think>`: they become reasoning items."""
    system_messages: Literal["auto", "in_place", "first"] = "auto"
    """Where later system messages go: in place, or into the first one. `auto`: there once one was refused."""
    reasoning_field: Literal["auto", "none", "reasoning_content", "reasoning"] = "auto"
    """Chat: where all earlier reasoning goes in a message. `auto`: only a running tool turn's, as it came."""
    drop_fields: Annotated[tuple[FieldName, ...], Field(max_length=256)] = ()
    """Request fields that background and translated calls leave out."""
    set_fields: dict[FieldName, Any] = Field(default_factory=dict)
    """Request fields that background and translated calls have, whatever the caller sent. JSON values."""
    concurrency_max: Count = 256
    """Background calls under way at once, per replica; the rest wait in the queue."""
    foreground_reserved: Annotated[int, Field(ge=0)] = 0
    """Part of `concurrency_max` that is reserved for plain requests."""
    slots_kept_percent: Annotated[float, Field(ge=0, le=50)] = 5
    """Percentage of slots that is reserved for callers who have less than their share."""
    connect_timeout_s: Seconds = 5
    connect_attempts_max: Annotated[int, Field(ge=1, le=20)] = 3
    """Tries to connect for a background call, with jittered back-off; then its job waits in the queue."""
    down_wait_s: Seconds = 300
    """Longest that jobs wait for a backend that cannot be reached."""
    backoff_first_ms: Annotated[int, Field(ge=1, le=60_000)] = 100
    """Before the first retry at most; the next ones at most twice that, four times, …"""
    backoff_max_ms: Annotated[int, Field(ge=1, le=600_000)] = 2_000
    retry_after_times_max: Annotated[int, Field(ge=0, le=1000)] = 5
    """How many times a job waits after 429 or 503 before it fails."""
    retry_after_max_s: Seconds = 120
    """Longest wait for a backend that answered so, whatever its `Retry-After` says."""
    retry_after_default_s: Seconds = 0.5
    """The wait without a `Retry-After`; it doubles each time."""
    retry_percent_max: Annotated[float, Field(ge=0, le=100)] = 10
    """Retries in percent of the calls within `retry_window_s`."""
    retry_min_per_s: Annotated[float, Field(ge=0, le=10_000)] = 3
    """That many retries a second of the window are allowed however few calls there are."""
    retry_window_s: Annotated[float, Field(ge=1, le=3600)] = 60
    head_timeout_s: Seconds = 120
    """Background: from the sent request to the first byte of the answer's head."""
    plain_head_timeout_s: Seconds = 600
    """Pass-through: the same. 600 s is the official SDKs' own total."""
    idle_timeout_s: Seconds = 300
    """Longest silence between two reads of an answer."""
    lookup_timeout_s: Seconds = 10
    """Timeout of a request for a response id that is not ours."""
    health_interval_s: Seconds = 5
    """Between two checks of a replica, by `GET {url}/models`."""
    breaker_failures: Count = 5
    """So many calls without an answer in a row, and a replica gets no calls for `breaker_open_s`."""
    breaker_percent: Annotated[float, Field(gt=0, le=100)] = 50
    """The same if so many percent of its calls within `breaker_window_s` fail."""
    breaker_calls_min: Count = 20
    """But not before there have been so many."""
    breaker_window_s: Annotated[float, Field(ge=1, le=3600)] = 30
    breaker_open_s: Seconds = 5
    backfill: Literal["off", "vllm", "sglang", "llamacpp"] = "off"
    """Whose metrics to read, to hold background jobs back while the backend is busy; `off` reads none."""
    backfill_poll_ms: Annotated[int, Field(ge=50, le=60_000)] = 500
    backfill_hold_s: Seconds = 600
    """Longest that a background job is held back."""
    backfill_metrics_path: str = "/metrics"
    """From the root of each replica, not from its base URL."""
    backfill_waiting_max: Annotated[int, Field(ge=0)] = 0
    """Background jobs are held back while more requests than this wait in the backend's own queue."""

    _key_of_environment: SecretStr | None = PrivateAttr(default=None)

    @property
    def urls(self) -> tuple[str, ...]:
        """All replicas; `url` is the first."""
        return (self.url, *self.replicas)

    @field_validator("models", "drop_fields")
    @classmethod
    def _has_nothing_twice(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for number, item in enumerate(value):
            if item in value[:number]:
                raise ValueError(f"has {item!a} twice")
        return value

    @field_validator("api_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(checked_key(value.get_secret_value()))

    @field_validator("api_key_file")
    @classmethod
    def _holds_a_key(cls, value: Path | None) -> Path | None:
        if value is not None:
            checked_key(read_text(value))
        return value

    @field_validator("api_key_env")
    @classmethod
    def _names_a_key(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None:
            key_of_variable(value, info.context)
        return value

    @field_validator("headers")
    @classmethod
    def _can_be_set(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        seen = set()
        for name, secret in value.items():
            if not _TOKEN.fullmatch(name):
                raise ValueError("the name of a header must be a token (RFC 9110, section 5.6.2)")
            if name.lower() in _RESERVED_HEADERS:
                raise ValueError(f"{name} belongs to the connection and cannot be set")
            if not re.fullmatch(r"[!-~]([ -~]*[!-~])?", secret.get_secret_value()):
                raise ValueError("the value of a header must be printable ASCII, and not empty")
            if name.lower() in seen:
                raise ValueError("has a header twice; upper and lower case are the same")
            seen.add(name.lower())
        return value

    @field_validator("drop_fields", "set_fields")
    @classmethod
    def _leaves_the_request_itself(cls, value: Any) -> Any:
        for name in _CALLER_FIELDS:
            if name in value:
                raise ValueError(f"{name} is what the request is about, and cannot be changed")
        return value

    @field_validator("set_fields")
    @classmethod
    def _is_json(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not _can_be_json(value, JSON_DEPTH_MAX):
            raise ValueError(
                "must be JSON: text, 64-bit integers, finite numbers, true, false, null, lists and mappings, "
                f"not more than {JSON_DEPTH_MAX} deep"
            )
        return value

    @field_validator("backfill_metrics_path")
    @classmethod
    def _is_a_path(cls, value: str) -> str:
        if not re.fullmatch(r"/[!-~]*", value) or set(value) & set("?#") or value.startswith("//"):
            raise ValueError("must be an absolute path without query and fragment")
        return value

    def model_post_init(self, context: Any) -> None:
        if self.api_key_env is not None:
            self._key_of_environment = SecretStr(key_of_variable(self.api_key_env, context))

    def read_api_key(self) -> str | None:
        """The key to send to the model server, or None; a key file is read anew by each call.

        Raises:
            ValueError: The key file was fine at start and no longer is; the text has no secret in it.
        """
        if self.api_key_file is not None:
            return checked_key(read_text(self.api_key_file))
        key = self.api_key or self._key_of_environment
        return key.get_secret_value() if key is not None else None


# Helpers of the checks.

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_RESERVED_HEADERS = HOP_BY_HOP | {"host", "content-length"}
_CALLER_FIELDS = ("model", "input", "messages", "stream")


def _can_be_json(value: Any, depth: int) -> bool:
    match value:
        case None | bool():
            return True
        case int():
            return -(2**63) <= value < 2**64
        case float():
            return math.isfinite(value)
        case str():
            return value.isascii() or not re.search("[\ud800-\udfff]", value)
        case list() if depth:
            return all(_can_be_json(item, depth - 1) for item in value)
        case dict() if depth:
            return all(isinstance(key, str) and _can_be_json(key, 0) for key in value) and all(
                _can_be_json(item, depth - 1) for item in value.values()
            )
    return False
