"""The public keys by which tokens are verified: PEM, or a JWK set (RFC 7517).

Loads the cryptography library only where such a file is given.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.config.keyfiles import read_text

_KEYS_MAX = 32
"""Each may have to be tried on a token that names none."""
_RSA_BITS_MIN = 2048  # RFC 7518, section 3.3
_PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One key of an issuer.

    Attributes:
        key_id: `kid`; None in PEM.
        algorithms: What it can verify: never what another kind of key could (RFC 8725, section 3.1).
    """

    key_id: str | None
    algorithms: frozenset[str]
    key: Any


def public_keys(file: Path) -> tuple[PublicKey, ...]:
    """The keys in a file. Raises: ValueError, also for a private or a symmetric one."""
    text = read_text(file, is_secret=False)
    found = _of_jwks(text) if text.lstrip().startswith("{") else _of_pem(text)
    if not 1 <= len(found) <= _KEYS_MAX:
        raise ValueError(f"must hold 1 to {_KEYS_MAX} public keys, as PEM or as a JWK set")
    return tuple(found)


def _of_pem(text: str) -> list[PublicKey]:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    found = []
    for block in _PEM.finditer(text):
        if block[1] != "PUBLIC KEY":
            raise ValueError("must hold public keys only: -----BEGIN PUBLIC KEY-----")
        try:
            key = load_pem_public_key(block[0].encode())
        except Exception:  # of many kinds, by what is wrong with it; their words may quote it
            raise ValueError("has a public key that cannot be read") from None
        found.append(PublicKey(None, _algorithms(key), key))
    return found


def _of_jwks(text: str) -> list[PublicKey]:
    from jwt import PyJWK

    try:
        listed = json.loads(text)["keys"]
    except (ValueError, KeyError, TypeError):
        raise ValueError("is neither PEM nor a JWK set") from None
    found = []
    for jwk in listed if isinstance(listed, list) else []:
        if not isinstance(jwk, dict) or jwk.get("kty") == "oct" or "d" in jwk:
            raise ValueError("must hold public keys only: no symmetric and no private ones")
        if jwk.get("use", "sig") != "sig":
            continue  # one to encrypt with
        try:
            key = PyJWK(jwk).key
        except Exception:  # the same here, and of two packages
            raise ValueError("has a public key that cannot be read") from None
        algorithms = _algorithms(key)
        if "alg" in jwk:
            algorithms &= {str(jwk["alg"])}
        kid = jwk.get("kid")
        found.append(PublicKey(str(kid) if kid is not None else None, algorithms, key))
    return found


def _algorithms(key: Any) -> frozenset[str]:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    if isinstance(key, RSAPublicKey):
        if key.key_size < _RSA_BITS_MIN:
            raise ValueError(f"has an RSA key of fewer than {_RSA_BITS_MIN} bits")
        return frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
    if isinstance(key, EllipticCurvePublicKey):
        by_curve = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
        if key.curve.name in by_curve:
            return frozenset({by_curve[key.curve.name]})
    if isinstance(key, Ed25519PublicKey | Ed448PublicKey):
        return frozenset({"EdDSA"})
    raise ValueError("has a public key of a kind that signs no token")
