"""Which way to tell callers apart: one for each `tenants.mode`."""

from __future__ import annotations

from gateway.api.tenants import ByCredential, ByStaticKey, ByTrustedHeader, Everyone, Tenants, derived
from gateway.config import TenantSettings


def tenants_of(settings: TenantSettings, pepper: bytes) -> Tenants:
    """The way that the settings ask for."""
    match settings.mode:
        case "passthrough":
            return ByCredential(pepper)
        case "static_keys":
            return ByStaticKey(settings.read_keys(), pepper)
        case "jwt":
            from gateway.api.tokens import ByToken  # and with it the libraries that verify

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
