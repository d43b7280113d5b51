"""Bodies in content codings: what they decode to, and what is refused before it costs much."""

from __future__ import annotations

import gzip
import itertools
import os
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire.bodies.codings import ACCEPTED, CODED_MAX, PARTS_MAX, Decoding, codings_of
from gateway.wire.errors import Fault, Refusal

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 2**20
TEXT = b'{"model": "m", "input": "Say hello to all otters.", "background": true}' * 20


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip by its old name": ("x-gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "deflate without a header": ("deflate", _raw_deflate),
    "stored deflate without a header": ("deflate", lambda data: zlib.compress(data, 0)[2:-4]),
    "brotli": ("br", brotli.compress),
    "zstd": ("zstd", zstd.compress),
    "zstd without its size": (
        "zstd",
        lambda data: zstd.compress(data, options={zstd.CompressionParameter.content_size_flag: 0}),
    ),
    "gzip in two members": ("gzip", lambda data: gzip.compress(data[:7]) + gzip.compress(data[7:])),
    "zstd in two frames": ("zstd", lambda data: zstd.compress(data[:7]) + zstd.compress(data[7:])),
    "zstd behind a frame to skip": (
        "zstd",
        lambda data: b"\x50\x2a\x4d\x18\x02\0\0\0ab" + zstd.compress(data),
    ),
}
SEVERAL = {
    "gzip in two members": len(gzip.compress(TEXT[:7])),
    "zstd in two frames": len(zstd.compress(TEXT[:7])),
    "zstd behind a frame to skip": 10,
}
"""Where the first part of those with several ends."""

each = pytest.mark.parametrize("how", PACKERS)


def decode(data: bytes, *values: str, bytes_max: int = MIB, cuts: tuple[int, ...] = ()) -> bytes:
    decoding = Decoding(codings_of(values), bytes_max)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(places)]
    body = b"".join(part for piece in pieces for part in decoding.feed(piece))
    decoding.close()
    return body


def refusal(data: bytes, *values: str, bytes_max: int = MIB) -> Refusal:
    with pytest.raises(Refusal) as caught:
        decode(data, *values, bytes_max=bytes_max)
    return caught.value


@each
def test_a_coded_body_decodes_to_what_was_coded_wherever_it_is_cut(how: str) -> None:
    name, pack = PACKERS[how]
    data = pack(TEXT)
    assert decode(data, name) == TEXT
    assert decode(data, name, cuts=tuple(range(len(data)))) == TEXT
    for cut in range(len(data)):
        assert decode(data, name, cuts=(cut,)) == TEXT


@given(st.binary(max_size=300), st.sampled_from(sorted(PACKERS)), st.lists(st.integers(0, 400)))
def test_any_bytes_come_through_any_coding(data: bytes, how: str, cuts: list[int]) -> None:
    name, pack = PACKERS[how]
    assert decode(pack(data), name, cuts=tuple(cuts)) == data


@each
def test_a_body_that_is_cut_short_is_refused_wherever_it_ends(how: str) -> None:
    name, pack = PACKERS[how]
    data = pack(TEXT)
    for end in range(len(data)):
        if how in SEVERAL and end == SEVERAL[how]:
            continue  # where it might have ended
        refused = refusal(data[:end], name)
        assert (refused.fault, refused.code) == (Fault.INVALID, "invalid_content_encoding"), end
        assert "ends too early" in refused.message


@each
@pytest.mark.parametrize("garbage", [b"\0", b"\0" * 20, b"garbage behind it", b"\x1f", b"(\xb5/"])
def test_what_stands_behind_the_end_is_refused(how: str, garbage: bytes) -> None:
    name, pack = PACKERS[how]
    data = pack(TEXT)
    for cut in (0, len(data)):  # with the last bytes, and apart from them
        with pytest.raises(Refusal) as caught:
            decode(data + garbage, name, cuts=(cut,))
        assert caught.value.code == "invalid_content_encoding"


@settings(max_examples=300)
@given(st.binary(min_size=1, max_size=60), st.sampled_from(["gzip", "deflate", "br", "zstd", "x-gzip"]))
def test_bytes_that_are_not_of_the_coding_raise_nothing_but_a_refusal(data: bytes, name: str) -> None:
    with suppress(Refusal):
        decode(data, name)


def test_a_damaged_byte_is_found_by_the_codings_that_have_a_checksum() -> None:
    for name, pack in (("gzip", gzip.compress), ("deflate", zlib.compress)):
        data = bytearray(pack(os.urandom(500)))
        data[250] ^= 1
        assert "is not valid" in refusal(bytes(data), name).message


@pytest.mark.parametrize(
    ("values", "packed"),
    [
        ((), TEXT),
        (("identity",), TEXT),
        (("",), TEXT),
        (("gzip, identity",), gzip.compress(TEXT)),
        ((" GZip ,, ",), gzip.compress(TEXT)),
        (("gzip, br",), brotli.compress(gzip.compress(TEXT))),
        (("gzip", "br"), brotli.compress(gzip.compress(TEXT))),
        (("deflate", "identity", "zstd, x-gzip"), gzip.compress(zstd.compress(zlib.compress(TEXT)))),
    ],
    ids=range(8),  # gzip has the time in it
)
def test_several_codings_are_undone_from_the_last_to_the_first(
    values: tuple[str, ...], packed: bytes
) -> None:
    assert decode(packed, *values) == TEXT
    assert decode(packed, *values, cuts=tuple(range(0, len(packed), 3))) == TEXT


@pytest.mark.parametrize(
    "value",
    [
        "compress",
        "x-compress",
        "aws-chunked",
        "gzip, unknown",
        "lz4",
        "dcz",
        "*",
        "gzip;q=1",
        "gzip gzip",
        "exi",
    ],
)
def test_an_unknown_coding_is_a_415_that_names_the_known_ones(value: str) -> None:
    refused = refusal(TEXT, value)
    assert (refused.fault, refused.code) == (Fault.UNSUPPORTED_CODING, "unsupported_content_encoding")
    assert ACCEPTED in refused.message
    assert value not in refused.message  # it is the client's text


def test_codings_within_codings_have_an_end() -> None:
    assert decode(b"", *[","] * 50) == b""
    codings_of(["gzip"] * CODED_MAX)
    with pytest.raises(Refusal) as caught:
        codings_of(["gzip"] * (CODED_MAX + 1))
    assert caught.value.fault is Fault.UNSUPPORTED_CODING


@cache
def _bombs() -> dict[str, tuple[tuple[str, ...], bytes]]:
    zeros = bytes(40 * MIB)
    packed = {
        "gzip": gzip.compress(zeros),
        "deflate": zlib.compress(zeros),
        "br": brotli.compress(zeros, quality=5),
    }
    packed["zstd"] = zstd.compress(zeros)
    bombs: dict[str, tuple[tuple[str, ...], bytes]] = {name: ((name,), data) for name, data in packed.items()}
    bombs["gzip in gzip"] = (("gzip", "gzip"), gzip.compress(packed["gzip"]))
    bombs["zstd of many frames"] = (("zstd",), zstd.compress(bytes(2**19)) * 100)
    # Small in the end, and large on the way there.
    skipped = b"\x50\x2a\x4d\x18" + (30 * MIB).to_bytes(4, "little") + bytes(30 * MIB)
    bombs["large between two"] = (("zstd", "gzip"), gzip.compress(skipped + zstd.compress(TEXT)))
    return bombs


@pytest.mark.parametrize("name", list(_bombs()))
def test_a_bomb_is_refused_before_more_than_the_limit_and_a_piece_is_there(name: str) -> None:
    values, data = _bombs()[name]
    assert len(data) < MIB
    pieces: list[bytes] = []
    with pytest.raises(Refusal) as caught:
        pieces.extend(Decoding(codings_of(values), MIB).feed(data))
    assert (caught.value.fault, caught.value.code) == (Fault.TOO_LARGE, "request_too_large")
    assert sum(map(len, pieces)) <= MIB
    assert max(map(len, pieces), default=0) <= 2**18


def test_a_body_of_exactly_the_limit_is_taken_and_a_byte_more_is_not() -> None:
    for how, (name, pack) in PACKERS.items():
        assert len(decode(pack(bytes(MIB)), name)) == MIB, how
        assert refusal(pack(bytes(MIB + 1)), name).fault is Fault.TOO_LARGE, how


def test_parts_that_stand_for_nothing_are_counted() -> None:
    for name, part in (
        ("gzip", gzip.compress(b"")),
        ("zstd", zstd.compress(b"")),
        ("zstd", b"\x50\x2a\x4d\x18\0\0\0\0"),
    ):
        assert decode(part * PARTS_MAX, name) == b""
        assert refusal(part * (PARTS_MAX + 1), name).code == "invalid_content_encoding"


def test_a_zstd_frame_that_wants_a_larger_window_than_the_rfc_allows_is_refused() -> None:
    data = os.urandom(64) * 2**18  # 16 MiB
    for log, is_taken in ((23, True), (24, False), (27, False)):
        options: dict[int, int] = {
            zstd.CompressionParameter.window_log: log,
            zstd.CompressionParameter.content_size_flag: 0,
        }
        packed = zstd.compress(data, options=options)
        if is_taken:
            assert decode(packed, "zstd", bytes_max=2**24) == data
        else:
            assert "RFC 9659" in refusal(packed, "zstd", bytes_max=2**24).message
