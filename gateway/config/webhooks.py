"""Receivers of webhooks, the schedule of attempts, and the addresses that are allowed.

A URL of a receiver may have a secret anywhere in it, in its path too: none is ever shown whole.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    IPvAnyNetwork,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from yarl import URL

from gateway.config.keyfiles import key_of_variable, read_text, signing_secret
from gateway.config.section import Count, Name, Seconds, Section

EventType = Literal["response.completed", "response.failed", "response.incomplete", "response.cancelled"]


def _is_receiver(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    try:
        url = URL(text)
        is_usable = url.scheme in ("http", "https") and bool(url.host) and not url.fragment
    except ValueError:
        is_usable = False
    if not is_usable or not re.fullmatch(r"[!-~]+", text):
        raise ValueError("must be an http:// or https:// URL with a host, and without a fragment")
    return secret


def _is_distinct(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) < len(value):
        raise ValueError("has an item twice")
    return value


SigningSecret = Annotated[
    SecretStr, AfterValidator(lambda secret: SecretStr(signing_secret(secret.get_secret_value())))
]
Secrets = Annotated[tuple[SigningSecret, ...], Field(max_length=8)]
Files = Annotated[tuple[Path, ...], Field(max_length=8)]
Variables = Annotated[tuple[str, ...], Field(max_length=8)]
ReceiverUrl = Annotated[SecretStr, AfterValidator(_is_receiver)]
TenantName = Annotated[str, Field(min_length=1, max_length=1024)]
Delays = Annotated[tuple[Seconds, ...], Field(min_length=1, max_length=100)]


class _Signing(Section):
    """Signing secrets. During a rotation there are several, and a receiver may know any of them."""

    secrets: Secrets = ()
    """`whsec_…`. Prefer files or variables."""
    secret_files: Files = ()
    """The same, each on the one line of a file that nobody but its owner may read."""
    secret_envs: Variables = ()
    """The same, from the environment variables of these names."""

    _found: tuple[str, ...] = PrivateAttr(default=())

    @field_validator("secret_files")
    @classmethod
    def _hold_secrets(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        for file in value:
            signing_secret(read_text(file))
        return value

    @field_validator("secret_envs")
    @classmethod
    def _name_secrets(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for variable in value:
            signing_secret(key_of_variable(variable, info.context))
        return value

    def model_post_init(self, context: Any) -> None:
        given = [secret.get_secret_value() for secret in self.secrets]
        in_files = [signing_secret(read_text(file)) for file in self.secret_files]
        named = [key_of_variable(variable, context) for variable in self.secret_envs]
        self._found = (*given, *in_files, *named)

    @property
    def signing_secrets(self) -> tuple[str, ...]:
        """All secrets, as they were at the start."""
        return self._found


class EndpointSettings(_Signing):
    """One receiver of events."""

    url: ReceiverUrl
    events: Annotated[tuple[EventType, ...], AfterValidator(_is_distinct), Field(min_length=1)] = (
        "response.completed",
        "response.failed",
        "response.incomplete",
        "response.cancelled",
    )
    tenants: Annotated[tuple[TenantName, ...], AfterValidator(_is_distinct), Field(max_length=10_000)] = ()
    """Tenants whose responses it gets events of: by name, or by the eight digits that the log shows. Empty is
    all tenants."""

    @property
    def origin(self) -> str:
        """Scheme, host and port: the part of the URL that may be shown."""
        return str(URL(self.url.get_secret_value()).origin())


class WebhookSettings(Section):
    """Receivers, and the schedule of attempts."""

    endpoints: Annotated[dict[Name, EndpointSettings], Field(max_length=64)] = Field(default_factory=dict)
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 15
    """Longest attempt, from the name's resolution to the end of the answer."""
    retry_delays_s: Delays = (5, 30, 120, 300, 1800)
    """Delays between attempts, ±10 %. The last one repeats."""
    retry_for_s: Seconds = 72 * 3600
    """An event that is not delivered within this time is given up."""
    concurrency_max: Count = 8
    """Concurrent attempts for one endpoint, or for the URLs of one caller."""
    pending_max: Count = 100_000
    """Events that may wait for one endpoint, or for one caller's URLs. Beyond it the oldest are given up."""
    deny_private: bool = False
    """Restrict endpoints, too, to public addresses and `allowed_networks`."""
    allowed_networks: Annotated[tuple[IPvAnyNetwork, ...], Field(max_length=256)] = ()
    """Networks that URLs may lead to although they are not public."""


class RequestWebhookSettings(_Signing):
    """URLs that callers name in their requests. Signed by secrets of their own: a receiver of a caller's
    choice must not get what an endpoint would take for its own."""

    metadata_key: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """The key of a request's `metadata` that has the URL; None takes no URL from callers."""
    concurrency_max: Count = 64
    """Concurrent attempts for the URLs of all callers."""
