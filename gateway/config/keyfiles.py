"""The formats of keys and of the files that hold them.

Messages reach a terminal: none quotes what it found, which may be a key in the wrong place.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_FILE_BYTES_MAX = 2**20


def read_text(file: Path, *, is_secret: bool = True) -> str:
    """A file's text. Raises: ValueError, also if everybody can read what is secret."""
    try:
        state = file.stat()
        if not stat.S_ISREG(state.st_mode):
            raise ValueError("is not a regular file")
        if is_secret and state.st_mode & stat.S_IROTH:  # the group may: so Kubernetes hands secrets to a pod
            mode = stat.S_IMODE(state.st_mode)
            raise ValueError(f"can be read by everybody (mode {mode:04o}): chmod 600 it")
        if state.st_size > _FILE_BYTES_MAX:
            raise ValueError(f"is larger than {_FILE_BYTES_MAX} bytes")
        return file.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


def checked_key(text: str) -> str:
    """A key that goes into a header. Raises: ValueError."""
    key = text.strip()
    if not re.fullmatch(r"[!-~]+", key):
        raise ValueError("must be one line of printable ASCII without spaces, and not empty")
    return key


def key_of_variable(variable: str, context: dict[str, Any] | None) -> str:
    """The key in a variable, of `context["environ"]` or our own. Raises: ValueError.

    The name may be a key itself, in the wrong place: it is not told.
    """
    environ = (context or {}).get("environ", os.environ)
    if not environ.get(variable):
        raise ValueError("names an environment variable that is not set, or is empty")
    try:
        return checked_key(environ[variable])
    except ValueError as error:
        raise ValueError(f"the variable it names {error}") from None


def signing_secret(text: str) -> str:
    """A signing secret (Standard Webhooks, "Signature scheme"). Raises: ValueError."""
    secret = checked_key(text)
    try:
        size = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if not secret.startswith("whsec_") or not 24 <= size <= 64:
        raise ValueError("must be whsec_ and the base64 of 24 to 64 random bytes")
    return secret


def checked_pepper(text: str) -> bytes:
    """The secret that tenants are derived from. Raises: ValueError."""
    found = text.strip()
    if not re.fullmatch(r"[!-~]{32,1024}", found):
        raise ValueError("must be 32 or more characters of printable ASCII, e.g. of `openssl rand -hex 32`")
    return found.encode()


def lines_of(text: str) -> list[str]:
    """Lines that say something; `#` begins a comment."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def key_hashes(pairs: Iterable[tuple[str, str]]) -> dict[bytes, str]:
    """Tenants by the SHA-256 of a key, from pairs of both as text. Raises: ValueError."""
    found: dict[bytes, str] = {}
    for number, (digest, tenant) in enumerate(pairs, 1):
        if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
            raise ValueError(f"key {number}: must be given as its SHA-256, which is 64 hexadecimal digits")
        if not re.fullmatch(r"[!-~]{1,128}", tenant):
            raise ValueError(f"key {number}: its tenant must be 1 to 128 characters of ASCII, without blanks")
        if bytes.fromhex(digest) in found:
            raise ValueError(f"key {number}: is given twice")
        found[bytes.fromhex(digest)] = tenant
    return found


def key_hashes_in(file: Path) -> dict[bytes, str]:
    """The same from a file: on each line a hash and a tenant. Raises: ValueError."""
    lines = lines_of(read_text(file))
    if not lines:
        raise ValueError("has no key")
    pairs = [line.split(None, 1) for line in lines]
    return key_hashes((pair[0], pair[1] if len(pair) > 1 else "") for pair in pairs)


def sealing_keys(items: Iterable[str]) -> dict[str, bytes]:
    """Keys of 32 bytes by their ids, in order, from `id:base64`. Raises: ValueError."""
    found: dict[str, bytes] = {}
    for number, item in enumerate(items, 1):
        key_id, colon, text = item.strip().partition(":")
        if not colon or not re.fullmatch(r"[A-Za-z0-9._-]{1,32}", key_id):
            raise ValueError(
                f"key {number}: must be an id (up to 32 letters, digits, '.', '_', '-'), a colon, and the key"
            )
        if key_id in found:
            raise ValueError(f"key {number}: its id is given twice")
        try:
            key = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != 32:
            raise ValueError(
                f"key {number}: must be 32 bytes in base64, e.g. of `openssl rand -base64 32`, after its id"
            )
        found[key_id] = key
    return found


def sealing_keys_in(file: Path) -> dict[str, bytes]:
    """The same from a file, one on each line. Raises: ValueError."""
    lines = lines_of(read_text(file))
    if not lines:
        raise ValueError("has no key")
    return sealing_keys(lines)
