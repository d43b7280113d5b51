"""Content codings of a request's body (RFC 9110 §8.4.1): which are known, and how they are undone.

A few bytes may stand for gigabytes. So a body is decoded piece by piece, and refused as soon as it is over
its limit; a body that is not whole, or has something behind its end, is refused, too.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import brotli

from gateway.wire.errors import Fault, Refusal, invalid, too_large

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CODED_MAX: Final = 4
"""Codings of one body, one within the other. Nobody has a use for two."""

PARTS_MAX: Final = 4096
"""Members of a gzip body, frames of a zstd body. An empty one costs as much as a kilobyte; those that are
sent (by bgzip, for one) have 64 KiB and more."""

_PIECE_BYTES: Final = 128 * 2**10
"""Decoded in one go, in less than a millisecond; brotli gives up to twice that."""

_ZSTD_OPTIONS: Final[dict[int, int]] = {zstd.DecompressionParameter.window_log_max: 23}
"""RFC 9659: 8 MiB. A frame says itself how much memory it takes, up to terabytes."""

_BROKEN = (zlib.error, zstd.ZstdError, brotli.error)


class _Part(Protocol):
    """One member, frame or stream, while it is decoded."""

    @property
    def is_over(self) -> bool: ...

    @property
    def rest(self) -> bytes:
        """Bytes after the end of the coded body."""

    def decode(self, data: bytes) -> bytes:
        """The next piece. Empty: nothing more without more data, which is not to be given before."""


class _Zlib:
    def __init__(self, wbits: int) -> None:
        self._stream = zlib.decompressobj(wbits)

    @property
    def is_over(self) -> bool:
        return self._stream.eof

    @property
    def rest(self) -> bytes:
        return self._stream.unused_data

    def decode(self, data: bytes) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, _PIECE_BYTES)


class _Zstd:
    def __init__(self) -> None:
        self._frame = zstd.ZstdDecompressor(options=_ZSTD_OPTIONS)

    @property
    def is_over(self) -> bool:
        return self._frame.eof

    @property
    def rest(self) -> bytes:
        return self._frame.unused_data

    def decode(self, data: bytes) -> bytes:
        return self._frame.decompress(data, _PIECE_BYTES)


class _Brotli:
    rest = b""
    """Never: the library fails at what comes behind the end."""

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()

    @property
    def is_over(self) -> bool:
        return bool(self._stream.is_finished())

    def decode(self, data: bytes) -> bytes:
        piece: bytes = self._stream.process(data, output_buffer_limit=_PIECE_BYTES)
        return piece


def _deflate(first: bytes) -> _Part:
    """RFC 9110 §8.4.1.2: in the format of zlib; some clients leave its header away."""
    is_zlib = first[0] & 0xF == 8  # the method; a raw stream does not begin so
    return _Zlib(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)


@dataclass(frozen=True, slots=True)
class Coding:
    """One content coding.

    Attributes:
        begin: Makes the decoder of a part that begins with these bytes.
        parts_max: How many parts may follow each other.
    """

    name: str
    begin: Callable[[bytes], _Part]
    parts_max: int = 1
    limits: str = ""
    """A hint for a body that cannot be decoded."""


_GZIP = Coding("gzip", lambda _first: _Zlib(16 + zlib.MAX_WBITS), PARTS_MAX)
_CODINGS = {
    "gzip": _GZIP,
    "x-gzip": _GZIP,  # RFC 9110 §8.4.1.3
    "deflate": Coding("deflate", _deflate),
    "br": Coding("br", lambda _first: _Brotli()),
    "zstd": Coding(
        "zstd", lambda _first: _Zstd(), PARTS_MAX, " (or has a window of more than 8 MiB, see RFC 9659)"
    ),
}

ACCEPTED: Final = "gzip, deflate, br, zstd"
"""The value of `Accept-Encoding` in the answer to any other coding (RFC 7694)."""


def codings_of(values: Iterable[str]) -> tuple[Coding, ...]:
    """The codings of a body by the values of its `Content-Encoding`, in the order in which they were applied.

    Raises:
        Refusal: 415, if one of them is not known here, or there are too many.
    """
    names = [name.strip().lower() for name in ",".join(values).split(",")]
    names = [name for name in names if name not in ("", "identity")]
    if len(names) > CODED_MAX or not _CODINGS.keys() >= set(names):
        message = (
            f"The body's Content-Encoding cannot be read here. Send it as it is, or in one of {ACCEPTED}."
        )
        raise Refusal(Fault.UNSUPPORTED_CODING, message, code="unsupported_content_encoding")
    return tuple(_CODINGS[name] for name in names)


class Decoding:
    """A body that is being decoded.

    Args:
        codings: In the order in which they were applied.
        bytes_max: Of what it is in the end, and of what it is between two codings.
    """

    def __init__(self, codings: tuple[Coding, ...], bytes_max: int) -> None:
        self._stages = [_Stage(coding, bytes_max) for coding in reversed(codings)]

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The next decoded pieces of the body. Raises: Refusal."""
        return self._through(0, data)

    def close(self) -> None:
        """All has come. Raises: Refusal, if it should have been more."""
        for stage in self._stages:
            stage.close()

    def _through(self, number: int, data: bytes) -> Iterator[bytes]:
        if number == len(self._stages):
            yield data
            return
        for piece in self._stages[number].feed(data):
            yield from self._through(number + 1, piece)


class _Stage:
    """One coding of a body, being undone."""

    def __init__(self, coding: Coding, bytes_max: int) -> None:
        self._coding = coding
        self._bytes_max = bytes_max
        self._size = 0
        self._part: _Part | None = None
        self._parts = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._part is None:
                self._part = self._next_part(data)
            while piece := self._decoded(self._part, data):
                data = b""
                self._size += len(piece)
                if self._size > self._bytes_max:
                    raise too_large(self._bytes_max)
                yield piece
            data = b""
            if self._part.is_over:
                data, self._part = self._part.rest, None

    def close(self) -> None:
        if self._part is not None or not self._parts:
            raise self._malformed("ends too early")

    def _next_part(self, data: bytes) -> _Part:
        if self._parts == self._coding.parts_max:
            raise self._malformed("goes on behind its end")
        self._parts += 1
        return self._coding.begin(data)

    def _decoded(self, part: _Part, data: bytes) -> bytes:
        if part.is_over:
            return b""
        try:
            return part.decode(data)
        except _BROKEN:
            raise self._malformed(f"is not valid{self._coding.limits}") from None

    def _malformed(self, what: str) -> Refusal:
        message = f"The {self._coding.name} of the request body {what}."
        return invalid(message, code="invalid_content_encoding")
