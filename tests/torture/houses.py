"""Gateways by how they tell callers apart, and what a caller of each brings to be let in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.acceptance.tokens import AUDIENCE, ISSUER, issuer, pem, token

OURS = "sk-of-the-gateway-456"
"""The gateway's own key, where it has one."""

Headers = dict[str, str]


@dataclass(frozen=True, slots=True)
class House:
    """One way to tell callers apart.

    Attributes:
        settings: Of the gateway, given a directory for files.
        headers: What the tenant of a name brings.
        key: What the backend then sees as its key.
    """

    name: str
    settings: Callable[[Path], dict[str, Any]]
    headers: Callable[[str], Headers]
    key: Callable[[str], str] = field(default=lambda tenant: OURS)

    @property
    def passes_credentials(self) -> bool:
        return self.key("x") != OURS


def key_of(tenant: str) -> str:
    return f"sk-{tenant}-0123456789abcdef"


def _bearer(tenant: str) -> Headers:
    return {"Authorization": f"Bearer {key_of(tenant)}"}


def with_static_keys(directory: Path, *tenants: str) -> dict[str, Any]:
    """Settings by which these tenants' keys are good."""
    lines = (f"{hashlib.sha256(key_of(tenant).encode()).hexdigest()} {tenant}" for tenant in tenants)
    return {"tenants__mode": "static_keys", "tenants__keys_file": _file(directory / "keys", "\n".join(lines))}


def with_tokens(directory: Path) -> dict[str, Any]:
    return {
        "tenants__mode": "jwt",
        "tenants__jwt_keys_file": _file(directory / "issuer.pem", pem(issuer()).decode()),
        "tenants__jwt_issuer": ISSUER,
        "tenants__jwt_audience": AUDIENCE,
    }


def _file(path: Path, text: str) -> Path:
    path.write_text(f"{text}\n")
    path.chmod(0o600)
    return path


_OWN_KEY = {"upstream__api_key": OURS}
_TRUSTED = {
    "tenants__mode": "trusted_header",
    "tenants__header": "X-Tenant",
    "tenants__header_peers": "127.0.0.1",
}

HOUSES = [
    House("passthrough", lambda _: {}, _bearer, key_of),
    House("own key", lambda _: _OWN_KEY, _bearer),
    House("static keys", lambda at: with_static_keys(at, "a", "b") | _OWN_KEY, _bearer),
    House("tokens", lambda at: with_tokens(at) | _OWN_KEY, lambda tenant: {"api-key": token(sub=tenant)}),
    House("trusted header", lambda _: _TRUSTED | _OWN_KEY, lambda tenant: {"X-Tenant": tenant}),
    House("passthrough, mka1", lambda _: {"dialect": "mka1"}, _bearer, key_of),
    House("passthrough, pharia", lambda _: {"dialect": "pharia"}, _bearer, key_of),
]
