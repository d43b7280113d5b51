"""Whose request it is: a tenant is made from the credential, and nothing else."""

from __future__ import annotations

import hashlib
import hmac

from gateway.core.call import Credential


def tenant_of(credential: Credential | None, pepper: bytes) -> bytes:
    """32 bytes that stand for a caller. Callers without a credential are one tenant.

    A keyed hash: from the database alone nobody can test guesses of a key.
    """
    message = b"anonymous" if credential is None else f"{credential.name}\0{credential.value}".encode()
    return hmac.new(pepper, message, hashlib.sha256).digest()
