"""Tokens of an issuer of our own, good ones and every kind of forged one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from functools import cache
from typing import Any

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER, AUDIENCE = "https://issuer.test", "backburner"


@cache
def issuer() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def stranger() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def pem(key: Any) -> bytes:
    """The public half."""
    found: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return found


def claims(**more: Any) -> dict[str, Any]:
    """What a good token says; None leaves a claim out."""
    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": int(time.time()) + 3600, **more}
    return {name: value for name, value in said.items() if value is not None}


def token(key: Any = None, algorithm: str = "RS256", head: dict[str, Any] | None = None, **said: Any) -> str:
    return jwt.encode(claims(**said), key or issuer(), algorithm=algorithm, headers=head)


def bad_tokens() -> dict[str, str]:
    """None of which may be accepted where RS256 of `issuer` is, with less than a minute of leeway."""
    now = int(time.time())
    unsigned = jwt.encode(claims(), "", algorithm="none")
    return {
        "none": unsigned,
        "none, in capitals": f"{_part({'alg': 'NoNe'}).decode()}.{unsigned.split('.')[1]}.",
        "no signature": f"{token().rpartition('.')[0]}.",
        "cut": token()[:-8],
        "other claims under the signature": _swapped(token(), claims(sub="bob")),
        "HS256 with the public key as the secret": _mac_by_public_key(),
        "another key": token(stranger()),
        "another key, which the token names": token(stranger(), head={"jku": "http://evil/", "kid": "x"}),
        "another key, which the token brings": token(stranger(), head={"jwk": {"kty": "RSA"}}),
        "an algorithm that is not listed": token(algorithm="RS384"),
        "expired": token(exp=now - 90),
        "never expires": token(exp=None),
        "expires, in words": token(exp="tomorrow"),
        "not yet": token(nbf=now + 90),
        "issued tomorrow": token(iat=now + 86400),
        "wrong audience": token(aud="another"),
        "no audience": token(aud=None),
        "wrong issuer": token(iss="https://evil.test"),
        "no issuer": token(iss=None),
        "no subject": token(sub=None),
        "empty subject": token(sub=""),
        "a header that is no header": "e30.e30.e30",
        "not a token": "sk-123456789012",
        "empty": "",
    }


def _part(value: Any) -> bytes:
    return base64.urlsafe_b64encode(orjson.dumps(value)).rstrip(b"=")


def _swapped(good: str, said: dict[str, Any]) -> str:
    head, _, signature = good.split(".")
    return f"{head}.{_part(said).decode()}.{signature}"


def _mac_by_public_key() -> str:
    """Good for whoever lets the token say which algorithm its key is for."""
    head = _part({"alg": "HS256", "typ": "JWT"}) + b"." + _part(claims())
    mac = base64.urlsafe_b64encode(hmac.new(pem(issuer()), head, hashlib.sha256).digest()).rstrip(b"=")
    return (head + b"." + mac).decode()
