"""Which callers are admitted, how they are told apart, and what happens to their credentials."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, field_validator

from gateway.config import keyfiles
from gateway.config.publickeys import PublicKey, public_keys
from gateway.config.section import Count, Seconds, Section
from gateway.wire.http.head import CREDENTIALS
from gateway.wire.http.headers import HOP_BY_HOP

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Asymmetric ones only: what verifies a token here cannot make one, and a public key is no shared secret."""

Claimed = Annotated[str, Field(min_length=1, max_length=1024)]

Tier = Literal["priority", "default", "flex"]


def _are_some(value: tuple[Tier, ...]) -> tuple[Tier, ...]:
    if not value:  # told by pydantic, it would be told of wrong items as well
        raise ValueError("must have at least one tier")
    return value


Tiers = Annotated[tuple[Tier, ...], AfterValidator(_are_some)]

_RESERVED_HEADERS = HOP_BY_HOP | CREDENTIALS | {"cookie", "host"}


class TenantSettings(Section):
    """How callers are told apart."""

    mode: Literal["passthrough", "static_keys", "jwt", "trusted_header", "none"] = "passthrough"
    pepper: SecretStr | None = None
    """Secret from which, with the credential, a tenant is derived. Default: the database's own."""
    pepper_file: Path | None = None
    checked_ok_s: Seconds = 60
    """`passthrough`: how long an accepted credential is not checked again."""
    checked_refused_s: Seconds = 5
    """The same for a credential that the backend refused, or could not judge."""
    checked_max: Count = 10_000
    """Remembered results of checks; beyond it the oldest is forgotten."""
    keys: Annotated[dict[str, str], Field(max_length=10_000)] = Field(default_factory=dict)
    """`static_keys`: tenants by the SHA-256 of a key, in hexadecimal."""
    keys_file: Path | None = None
    """The same, from a file: on each line a hash and a tenant."""
    jwt_keys_file: Path | None = None
    """`jwt`: the public keys of the issuer, as PEM or as a JWK set. Read at the start."""
    jwt_algorithms: tuple[Algorithm, ...] = ("RS256",)
    jwt_issuer: Claimed | None = None
    jwt_audience: Claimed | None = None
    jwt_leeway_s: Annotated[float, Field(ge=0, le=600)] = 30
    """Allowed clock skew, in seconds."""
    header: str | None = None
    """`trusted_header`: the header that names the tenant."""
    header_peers: Annotated[tuple[str, ...], Field(max_length=256)] = ()
    """Networks whose peers may set that header."""
    tiers_allowed: Annotated[dict[Claimed, Tiers], Field(max_length=10_000)] = Field(default_factory=dict)
    """Service tiers that background responses may have, by tenant: its name, or the eight digits that the log
    shows for it; `*` is every other tenant. A tenant without an entry may have all tiers."""
    allow_anyone: bool = False
    """`none`: intended, although other machines can connect."""

    @property
    def passes_credentials(self) -> bool:
        """Callers' credentials are for the backend; else they are for the gateway, and end here."""
        return self.mode in ("passthrough", "none")

    @property
    def networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        return tuple(ipaddress.ip_network(peer) for peer in self.header_peers)

    def read_pepper(self) -> bytes | None:
        """The pepper, if the settings have one."""
        if self.pepper_file is not None:
            return keyfiles.checked_pepper(keyfiles.read_text(self.pepper_file))
        return None if self.pepper is None else keyfiles.checked_pepper(self.pepper.get_secret_value())

    def read_keys(self) -> dict[bytes, str]:
        """Tenants by the SHA-256 of their keys."""
        if self.keys_file is not None:
            return keyfiles.key_hashes_in(self.keys_file)
        return keyfiles.key_hashes(self.keys.items())

    def read_public_keys(self) -> tuple[PublicKey, ...]:
        """The issuer's keys. One of them must have signed a token."""
        return () if self.jwt_keys_file is None else public_keys(self.jwt_keys_file)

    @field_validator("pepper")
    @classmethod
    def _is_a_pepper(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            keyfiles.checked_pepper(value.get_secret_value())
        return value

    @field_validator("pepper_file")
    @classmethod
    def _holds_a_pepper(cls, value: Path | None) -> Path | None:
        if value is not None:
            keyfiles.checked_pepper(keyfiles.read_text(value))
        return value

    @field_validator("keys")
    @classmethod
    def _are_hashes(cls, value: dict[str, str]) -> dict[str, str]:
        keyfiles.key_hashes(value.items())
        return value

    @field_validator("keys_file")
    @classmethod
    def _holds_hashes(cls, value: Path | None) -> Path | None:
        if value is not None:
            keyfiles.key_hashes_in(value)
        return value

    @field_validator("jwt_keys_file")
    @classmethod
    def _holds_public_keys(cls, value: Path | None) -> Path | None:
        if value is not None:
            public_keys(value)
        return value

    @field_validator("header")
    @classmethod
    def _can_name_a_tenant(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", value):  # `_` and `.` twins are dropped as they come in
            raise ValueError("must be the name of a header: letters, digits and -")
        if value.lower() in _RESERVED_HEADERS:
            raise ValueError("has another meaning, and cannot name the tenant")
        return value

    @field_validator("header_peers")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for peer in value:
            try:
                ipaddress.ip_network(peer)
            except ValueError:
                raise ValueError("must be networks or addresses, e.g. 10.0.0.0/8 or ::1") from None
        return value


class CredentialSettings(Section):
    """How a caller's credential is kept until its job has run."""

    sealing_keys: Annotated[tuple[SecretStr, ...], Field(max_length=32)] = ()
    """`id:base64` of 32 bytes each. The first one seals, all of them open. Prefer the file."""
    sealing_keys_file: Path | None = None
    """The same, one on each line."""
    missing_key: Literal["refuse", "fail_jobs"] = "refuse"
    """What to do at a start whose stored credentials need a key that is not given."""

    def read_sealing_keys(self) -> dict[str, bytes]:
        """The keys by id, the sealing one first; empty if nothing is sealed."""
        if self.sealing_keys_file is not None:
            return keyfiles.sealing_keys_in(self.sealing_keys_file)
        return keyfiles.sealing_keys(key.get_secret_value() for key in self.sealing_keys)

    @field_validator("sealing_keys")
    @classmethod
    def _are_keys(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        keyfiles.sealing_keys(key.get_secret_value() for key in value)
        return value

    @field_validator("sealing_keys_file")
    @classmethod
    def _holds_keys(cls, value: Path | None) -> Path | None:
        if value is not None:
            keyfiles.sealing_keys_in(value)
        return value
