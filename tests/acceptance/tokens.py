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
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
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


_DEEP = b"[" * 1100 + b"]" * 1100


def signed(head: bytes, said: Any, *, sub: bytes = b"alice", exp: bytes | None = None) -> str:
    """What no library would write, under the issuer's own signature."""
    payload = orjson.dumps(said).replace(b"alice", sub)
    if exp is not None:
        payload = payload.replace(str(said["exp"]).encode(), exp)
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (head, payload))
    signature = issuer().sign(text, PKCS1v15(), SHA256())
    return (text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


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
        "a subject that is a number": signed(b'{"alg":"RS256"}', claims(sub=5)),
        "a subject that is no text": signed(b'{"alg":"RS256"}', claims(), sub=rb"\ud800"),
        "a list of algorithms": signed(b'{"alg":["RS256"]}', claims()),
        "an algorithm that is an object": signed(b'{"alg":{"RS256":1}}', claims()),
        "a number for a key": signed(b'{"alg":"RS256","kid":5}', claims()),
        "an extension that must be understood": signed(b'{"alg":"RS256","crit":["x"],"x":1}', claims()),
        "a payload that is not encoded": signed(b'{"alg":"RS256","b64":false}', claims()),
        "a header of a thousand levels": signed(b'{"alg":"RS256","x":%b}' % _DEEP, claims())[:-8],
        "claims that are a list": signed(b'{"alg":"RS256"}', []),
        "a list of issuers": signed(b'{"alg":"RS256"}', claims(iss=[ISSUER])),
        "an audience within a list": signed(b'{"alg":"RS256"}', claims(aud=[[AUDIENCE]])),
        "expires never": signed(b'{"alg":"RS256"}', claims(), exp=b"Infinity"),
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
