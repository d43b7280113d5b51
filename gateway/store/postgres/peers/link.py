"""A connection between two gateways: each proves that it knows the secret, and all that follows is sealed.

The secret is never sent. Each end gives 32 random bytes and says who it is; the proofs and the keys of this
connection are made of the secret and of all that. Before its proof nobody is listened to, and not for long.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_MAGIC = b"backburner 1\n"
_RANDOM = _PROOF = 32
_ID = 16
_SIZE = struct.Struct("!I")
_COUNT = struct.Struct("!4xQ")
_TAG = 16
_PROVED_S = 2.0
"""From the connection to the proof of the other end."""
_SILENT_S = 3.0
"""Each end says something every second."""
RECORD_BYTES_MAX = 2 * 2**20


@dataclass(frozen=True, slots=True)
class Self:
    """Who we are to other gateways.

    Attributes:
        id: 16 characters.
        secret: What all gateways of a database know, and nobody else.
        unsent_bytes_max: Whoever leaves more untaken is cut off, and reads the table.
    """

    id: str
    secret: bytes
    unsent_bytes_max: int


class Owner(Protocol):
    """Who has a link."""

    def opened(self, link: Link) -> None:
        """Each end has proved that it knows the secret."""

    def heard(self, link: Link, record: memoryview) -> None:
        """Something came. Raises: ValueError, struct.error, if it cannot be read."""

    def lost(self, link: Link, reason: str) -> None:
        """It is closed, opened before or not; reason: see `Observer.link_lost`."""


class Link(asyncio.Protocol):
    """One end of one.

    Args:
        peer_id: Who must be at the other end, which we have dialled; None: whoever has dialled us.
        is_refused: There are too many.

    Attributes:
        peer_id: Who is there, once it is open.
    """

    def __init__(self, me: Self, peer_id: str | None, owner: Owner, *, is_refused: bool = False) -> None:
        self._me, self._owner = me, owner
        self.peer_id = peer_id or ""
        self._dials = peer_id is not None
        self._is_refused = is_refused
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._random = secrets.token_bytes(_RANDOM)
        self._said = b""
        self._step: Callable[[bytes], None] = self._proved if self._dials else self._greeted
        self._wanted = _RANDOM + _PROOF if self._dials else len(_MAGIC) + _RANDOM + _ID
        self._buffer = bytearray()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._ciphers: tuple[AESGCM, AESGCM] | None = None  # of what we send, and of what we get
        self._sent = self._got = 0
        self._heard_s = self._loop.time()
        self._reason = "closed"

    @property
    def is_open(self) -> bool:
        return self._ciphers is not None and self._transport is not None

    def send(self, frame: bytes) -> None:
        """Send a frame, of half a record at most, with all others of this turn of the event loop."""
        if not self.is_open:
            return
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(frame)
        self._waiting_bytes += len(frame)
        if self._waiting_bytes > RECORD_BYTES_MAX // 2:
            self._flush()

    def doubt(self) -> None:
        """Close it, if the other end has said nothing for too long."""
        if self._loop.time() - self._heard_s > _SILENT_S:
            self.close("silent")

    def close(self, reason: str = "closed") -> None:
        if self._transport is not None:
            self._reason = reason
            self._transport.abort()

    # -- as asyncio has it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._alarm = self._loop.call_later(_PROVED_S, self.close, "unproved")
        if self._is_refused:
            self.close()
        elif self._dials:
            self._transport.write(self._hello())

    def connection_lost(self, _error: Exception | None) -> None:
        self._alarm.cancel()
        was_open = self.is_open
        self._transport = None
        self._waiting.clear()
        self._owner.lost(self, self._reason if was_open else "unproved")

    def data_received(self, data: bytes) -> None:
        self._heard_s = self._loop.time()
        self._buffer += data
        while self._transport is not None and len(self._buffer) >= self._wanted:
            text = bytes(self._buffer[: self._wanted])
            del self._buffer[: self._wanted]
            self._step(text)

    # -- who is who

    def _hello(self) -> bytes:
        return _MAGIC + self._random + self._me.id.encode()

    def _greeted(self, hello: bytes) -> None:
        """Somebody has dialled us: prove that we are who it wants."""
        if not hello.startswith(_MAGIC):
            return self.close()
        self.peer_id = hello[-_ID:].decode("ascii", "replace")
        self._said = hello + self._random + self._me.id.encode()
        self._step, self._wanted = self._judged, _PROOF
        return self._write(self._random + self._made("proof of who was dialled"))

    def _proved(self, answer: bytes) -> None:
        """Whom we have dialled has proved it, or not; only then prove it, too."""
        self._said = self._hello() + answer[:_RANDOM] + self.peer_id.encode()
        if not hmac.compare_digest(answer[_RANDOM:], self._made("proof of who was dialled")):
            return self.close()
        self._write(self._made("proof of who dials"))
        return self._open("from who dials", "from who was dialled")

    def _judged(self, proof: bytes) -> None:
        if not hmac.compare_digest(proof, self._made("proof of who dials")):
            return self.close()
        return self._open("from who was dialled", "from who dials")

    def _open(self, sends: str, gets: str) -> None:
        self._ciphers = AESGCM(self._made(sends)), AESGCM(self._made(gets))
        self._step, self._wanted = self._sized, _SIZE.size
        self._alarm.cancel()
        self._owner.opened(self)

    def _made(self, what: str) -> bytes:
        return hmac.digest(self._me.secret, what.encode() + b"\n" + self._said, "sha256")

    # -- what follows

    def _sized(self, size: bytes) -> None:
        self._step, self._wanted = self._unsealed, _SIZE.unpack(size)[0]
        if self._wanted > RECORD_BYTES_MAX + _TAG:
            self.close("damaged")

    def _unsealed(self, sealed: bytes) -> None:
        assert self._ciphers is not None
        self._step, self._wanted = self._sized, _SIZE.size
        try:
            record = self._ciphers[1].decrypt(_COUNT.pack(self._got), sealed, None)
            self._got += 1
            self._owner.heard(self, memoryview(record))
        except (InvalidTag, ValueError, struct.error):
            self.close("damaged")

    def _flush(self) -> None:
        record, self._waiting, self._waiting_bytes = b"".join(self._waiting), [], 0
        if not record or self._transport is None or self._ciphers is None:
            return
        sealed = self._ciphers[0].encrypt(_COUNT.pack(self._sent), record, None)
        self._sent += 1
        self._write(_SIZE.pack(len(sealed)) + sealed)
        if self._transport.get_write_buffer_size() > self._me.unsent_bytes_max:
            self.close("slow")

    def _write(self, text: bytes) -> None:
        assert self._transport is not None
        self._transport.write(text)
