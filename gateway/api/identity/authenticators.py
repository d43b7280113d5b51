"""Who is asking: the ways to tell callers apart.

A tenant is 32 bytes that stand for a caller: a keyed hash, so that from the database alone nobody can test
guesses of a key. A way either passes callers' credentials on, and then whether they are good is for the
backend to say, or it lets callers in itself, and then what they bring ends here.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from gateway.config import TenantSettings
from gateway.wire.errors import Fault, Refusal
from gateway.wire.http.head import Credential, Head, is_sendable

_TENANT_CHARS_MAX = 256


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose request it is.

    Attributes:
        credential: What goes on to a backend that has no key of the gateway's.
        name: Where the settings, a token or a proxy give it one.
    """

    tenant: bytes
    credential: Credential | None
    name: str | None = None


class Authenticator(Protocol):
    """A way to tell callers apart."""

    @property
    def is_gate(self) -> bool:
        """Whether it is for the gateway to say who may come in, on every path."""

    def of(self, head: Head) -> Identity:
        """Who is asking. Raises: Refusal, if it cannot be told, or whoever it is may not come in."""


class ByCredential:
    """Each credential is a tenant; callers without one are one, too."""

    is_gate = False

    def __init__(self, pepper: bytes) -> None:
        self._pepper = pepper

    def of(self, head: Head) -> Identity:
        own = head.credential
        names = ("anonymous",) if own is None else (own.name, own.value)
        return Identity(derived(self._pepper, *names), own)


class Everyone:
    """All callers are one tenant."""

    is_gate = False

    def __init__(self, pepper: bytes) -> None:
        self._tenant = derived(pepper, "none")

    def of(self, head: Head) -> Identity:
        return Identity(self._tenant, head.credential)


class ByStaticKey:
    """Whoever has one of our keys.

    Args:
        keys: Tenants by the SHA-256 of a key.
    """

    is_gate = True

    def __init__(self, keys: dict[bytes, str], pepper: bytes) -> None:
        self._known: dict[bytes, list[tuple[bytes, Identity]]] = {}
        for digest, name in keys.items():
            # By its first bytes, so that a thousand keys cost what one does; the rest takes equal time.
            tenant = Identity(derived(pepper, "static_keys", name), None, name)
            self._known.setdefault(digest[:4], []).append((digest, tenant))

    def of(self, head: Head) -> Identity:
        digest = hashlib.sha256(presented(head).encode()).digest()
        for known, tenant in self._known.get(digest[:4], ()):
            if hmac.compare_digest(known, digest):
                return tenant
        raise not_let_in("Incorrect API key provided.")


class ByTrustedHeader:
    """Whoever a proxy in front says it is."""

    is_gate = True

    def __init__(self, settings: TenantSettings, pepper: bytes) -> None:
        assert settings.header is not None, "the settings are refused without one"
        self._header = settings.header.lower()
        self._networks = settings.networks
        self._pepper = pepper

    def of(self, head: Head) -> Identity:
        named = head.headers.all(self._header)
        # Two of them: one is what a caller smuggled past the proxy, and nobody could say which.
        is_one = len(named) == 1 and 1 <= len(named[0]) <= _TENANT_CHARS_MAX and is_sendable(named[0])
        if not (is_one and self._is_trusted(head.peer)):
            raise not_let_in("This gateway takes requests through its authenticating proxy only.")
        return Identity(derived(self._pepper, "trusted_header", named[0]), None, named[0])

    def _is_trusted(self, peer: str | None) -> bool:
        try:
            address = ipaddress.ip_address((peer or "").partition("%")[0])
        except ValueError:  # a Unix socket's
            return False
        # A dual-stack socket shows IPv4 peers as ::ffff:10.1.2.3.
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._networks)


def presented(head: Head) -> str:
    """The key or token that a caller presents to us. Raises: Refusal."""
    found = head.credential
    if found is None:
        raise not_let_in(
            "You didn't provide an API key, in 'Authorization: Bearer', 'api-key' or 'x-api-key'."
        )
    if found.name != "authorization":
        return found.value
    scheme, _, key = found.value.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def not_let_in(message: str, *, code: str = "invalid_api_key") -> Refusal:
    """The refusal of a caller (HTTP 401)."""
    return Refusal(Fault.UNAUTHENTICATED, message, code=code)


def derived(pepper: bytes, *names: str) -> bytes:
    """The tenant of that name. All but the last one must be free of NUL, or two could be mistaken for one."""
    keyed = _keyed(pepper).copy()
    keyed.update("\0".join(names).encode())
    return keyed.digest()


@cache
def _keyed(pepper: bytes) -> hmac.HMAC:
    """To find the algorithm and to set the key costs more than to use them."""
    return hmac.new(pepper, digestmod="sha256")


def authenticator_of(settings: TenantSettings, pepper: bytes) -> Authenticator:
    """The way that the settings ask for."""
    match settings.mode:
        case "passthrough":
            return ByCredential(pepper)
        case "static_keys":
            return ByStaticKey(settings.read_keys(), pepper)
        case "jwt":
            from gateway.api.identity.tokens import ByToken  # and with it the libraries that verify

            return ByToken(settings, pepper)
        case "trusted_header":
            return ByTrustedHeader(settings, pepper)
        case "none":
            return Everyone(pepper)


def fingerprint(named: str, settings: TenantSettings, pepper: bytes) -> str:
    """The eight digits that the log has for a tenant, for whom the settings give a name, or these digits."""
    match settings.mode:
        case "static_keys" | "trusted_header":
            return derived(pepper, settings.mode, named).hex()[:8]
        case "jwt":
            return derived(pepper, "jwt", settings.jwt_issuer or "", named).hex()[:8]
        case "passthrough" | "none":
            return named
