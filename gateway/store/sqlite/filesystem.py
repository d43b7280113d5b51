"""Which file systems a database may lie on: local ones, whose locks and flushes do what they say."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

# Magic numbers of statfs(2), linux/magic.h. SQLite's log needs shared memory between processes and locks that
# hold: over a network neither can be relied on (sqlite.org/howtocorrupt.html, section 2.1).
_NETWORK = {
    0x00006969: "NFS",
    0x0000517B: "SMB",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB",
    0x0000564C: "NCP",
    0x5346414F: "AFS",
    0x6B414653: "AFS",
    0x73757245: "Coda",
    0x00C36400: "Ceph",
    0x0BD00BD0: "Lustre",
    0x47504653: "GPFS",
    0x01161970: "GFS2",
    0x7461636F: "OCFS2",
    0x786F4256: "VirtualBox shared folder",
}
# What these do is up to a program that we cannot see.
_SOMEBODY_ELSES = {0x65735546: "FUSE", 0x01021997: "9P"}


def unfit(directory: Path, *, allow_fuse: bool) -> str | None:
    """Why a database must not lie there; None if it may."""
    magic = filesystem_magic(directory)
    if name := _NETWORK.get(magic):
        return f"lies on a network file system ({name}), whose locks and flushes cannot be relied on"
    if (name := _SOMEBODY_ELSES.get(magic)) and not allow_fuse:
        return f"lies on {name}; if its locks and flushes can be relied on, say so with store.allow_fuse"
    return None


def filesystem_magic(path: Path) -> int:
    """`f_type` of statfs(2); 0 where there is no such thing. Python's `os.statvfs` leaves it out."""
    if sys.platform != "linux":
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    answer = ctypes.create_string_buffer(512)  # struct statfs has 120 bytes; the kernel writes no more
    if libc.statfs(os.fsencode(path), answer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    return ctypes.c_long.from_buffer(answer).value & 0xFFFFFFFF
