"""Callers who bring a signed token (JWT, RFC 7519): the rules of RFC 8725 hold.

The algorithms are ours to name and asymmetric, a key verifies only what its kind can, and what a token says
of its own key (`jku`, `jwk`, `x5u`) is never followed.
"""

from __future__ import annotations

from typing import Any

import jwt

from gateway.api.identity.authenticators import Identity, derived, not_let_in, presented
from gateway.config import TenantSettings
from gateway.wire.http.head import Head

_REQUIRED = ("exp", "iss", "aud", "sub")
_UNFIT = "The token is not for this gateway: 'iss', 'aud', 'sub' or a time in it is missing or wrong."


class ByToken:
    """Each subject of the issuer is a tenant."""

    is_gate = True

    def __init__(self, settings: TenantSettings, pepper: bytes) -> None:
        self._keys = settings.read_public_keys()
        self._algorithms = frozenset(settings.jwt_algorithms)
        self._settings = settings
        self._pepper = pepper

    def of(self, head: Head) -> Identity:
        claims = self._claims(presented(head))
        return Identity(derived(self._pepper, "jwt", claims["iss"], claims["sub"]), None, claims["sub"])

    def _claims(self, token: str) -> dict[str, Any]:
        """What a token says that is what it must be. Raises: Refusal."""
        try:
            head = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise not_let_in("The API key must be a JSON Web Token.") from None
        algorithm, key_id = head.get("alg"), head.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise not_let_in("The token is signed with an algorithm that is not accepted here.")
        for known in self._keys:
            is_other = key_id is not None and known.key_id is not None and key_id != known.key_id
            if algorithm not in known.algorithms or is_other:
                continue
            try:
                return self._verified(token, known.key, algorithm)
            except jwt.InvalidSignatureError:
                continue  # an issuer that changes keys has two for a while
            except jwt.ExpiredSignatureError:
                raise not_let_in("The token has expired.", code="token_expired") from None
            except jwt.InvalidTokenError:
                raise not_let_in(_UNFIT) from None
        raise not_let_in("The token is not signed by the issuer.")

    def _verified(self, token: str, key: Any, algorithm: str) -> dict[str, Any]:
        claims = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            issuer=self._settings.jwt_issuer,
            audience=self._settings.jwt_audience,
            leeway=self._settings.jwt_leeway_s,
            options={"require": list(_REQUIRED)},
        )
        if not claims["sub"] or not _is_text(claims["sub"]):
            raise jwt.InvalidTokenError
        return claims


def _is_text(said: str) -> bool:
    """Whether it has no half of a surrogate pair, which JSON can write and UTF-8 cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in said)
