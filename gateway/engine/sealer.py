"""Sealing what must not lie in clear where others could read it: AES-256-GCM (NIST SP 800-38D) with random
nonces of 96 bits.

What is sealed for one owner (a job, or a purpose) of one tenant opens for no other: both are authenticated
with it. Random nonces are good for 2³² sealings under one key, which is a thousand a second for seven weeks.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping

from gateway.core.job import Sealed

_NONCE_BYTES = 12


class Unsealable(Exception):
    """The text says why; nothing of what was sealed is in it."""


class Sealer:
    """Seals and opens.

    Args:
        keys: 32 bytes each, by id. The first one seals, all of them open.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # only where there are keys

        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._key_id = next(iter(keys))

    @property
    def key_ids(self) -> Collection[str]:
        return self._ciphers.keys()

    def seal(self, text: bytes, *, owner: str, tenant: bytes) -> Sealed:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._ciphers[self._key_id].encrypt(nonce, text, _bound_to(owner, tenant))
        return Sealed(self._key_id, nonce + sealed)

    def open(self, sealed: Sealed, *, owner: str, tenant: bytes) -> bytes:
        """Raises: Unsealable."""
        from cryptography.exceptions import InvalidTag

        cipher = self._ciphers.get(sealed.key_id)
        if cipher is None:
            raise Unsealable(missing(sealed.key_id))
        nonce, text = sealed.text[:_NONCE_BYTES], sealed.text[_NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, text, _bound_to(owner, tenant))
        except (InvalidTag, ValueError):
            raise Unsealable(f"it does not open with the key '{sealed.key_id}'") from None


def missing(key_id: str) -> str:
    """Why something cannot be opened."""
    return f"it was sealed with the key '{key_id}', which is not configured any more"


def _bound_to(owner: str, tenant: bytes) -> bytes:
    return owner.encode() + tenant  # 32 bytes of tenant: there is one way to take it apart
