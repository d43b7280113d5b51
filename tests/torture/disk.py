"""Between SQLite and its files, in the gateway's own process: a disk that can be watched, and made to fail.

SQLite calls the operating system through tables of functions (sqlite.org/vfs.html). Here an entry of the
table of this process's own SQLite is replaced, the one that opens files, and every file that is opened gets a
copy of its table with a few entries replaced in turn. All else is the real library, and the files are real.
SQLite's own tests of power cuts and I/O errors are made like this (sqlite.org/testing.html, 3.2 and 3.3).

`Recorder` writes down every write, truncation, deletion and flush in their order, for `powercut`. `Faults`
makes calls fail, as a file says that can change at any time.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

OK, FULL = 0, 13
IOERR_READ, IOERR_WRITE, IOERR_FSYNC = 266, 778, 1034


class _Vfs(ctypes.Structure):
    pass


class _Methods(ctypes.Structure):
    pass


class _File(ctypes.Structure):
    _fields_ = (("methods", ctypes.POINTER(_Methods)),)


_FILE = ctypes.POINTER(_File)
_CLOSE = ctypes.CFUNCTYPE(ctypes.c_int, _FILE)
_READ = ctypes.CFUNCTYPE(ctypes.c_int, _FILE, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64)
_TRUNCATE = ctypes.CFUNCTYPE(ctypes.c_int, _FILE, ctypes.c_int64)
_SYNC = ctypes.CFUNCTYPE(ctypes.c_int, _FILE, ctypes.c_int)
_OPEN = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(_Vfs), ctypes.c_void_p, _FILE, ctypes.c_int, ctypes.POINTER(ctypes.c_int)
)
_DELETE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Vfs), ctypes.c_void_p, ctypes.c_int)

_Vfs._fields_ = (
    ("version", ctypes.c_int),
    ("file_bytes", ctypes.c_int),
    ("path_bytes_max", ctypes.c_int),
    ("next", ctypes.POINTER(_Vfs)),
    ("name", ctypes.c_char_p),
    ("data", ctypes.c_void_p),
    ("open", _OPEN),
    ("delete", _DELETE),
)
_Methods._fields_ = (
    ("version", ctypes.c_int),
    ("close", _CLOSE),
    ("read", _READ),
    ("write", _READ),  # the same arguments
    ("truncate", _TRUNCATE),
    ("sync", _SYNC),
    ("others", ctypes.c_void_p * 13),  # to the end of version 3; an older table ends before
)
_FUNCTIONS_BY_VERSION = {1: 12, 2: 16, 3: 18}

Call = Callable[[], int]

_installed: list[Disk] = []
"""For as long as the process lives: what SQLite has pointers to must not be collected."""


class Watch:
    """What is done about each call: a subclass does something before, after, or instead of `go`."""

    def write(self, name: str, offset: int, data: bytes, go: Call) -> int:
        return go()

    def truncate(self, name: str, size: int, go: Call) -> int:
        return go()

    def sync(self, name: str, go: Call) -> int:
        return go()

    def read(self, name: str, offset: int, go: Call) -> int:
        return go()

    def delete(self, name: str, go: Call) -> int:
        return go()


class Disk:
    """Puts a watch between this process's SQLite and the files that it opens from now on."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        library = ctypes.CDLL(getattr(_sqlite3, "__file__", None))  # finds what it was linked with, too
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
        self._vfs = library.sqlite3_vfs_find(None).contents
        self._open, self._delete = _copy(_OPEN, self._vfs.open), _copy(_DELETE, self._vfs.delete)
        self._names: dict[int, str] = {}
        self._tables: dict[int, _Methods] = {}  # by the address of the original
        self._kept: list[Any] = []

    def install(self) -> None:
        _installed.append(self)
        self._vfs.open, self._vfs.delete = self._keep(_OPEN(self._opened)), self._keep(_DELETE(self._deleted))

    def remove(self) -> None:
        """For files that are opened from now on."""
        self._vfs.open, self._vfs.delete = self._open, self._delete

    def _keep(self, function: Any) -> Any:
        self._kept.append(function)
        return function

    def _opened(self, vfs: Any, path: int | None, file: Any, flags: int, out: Any) -> int:
        code: int = self._open(vfs, path, file, flags, out)  # it keeps the path as a pointer
        if code == OK and path is not None:
            self._names[ctypes.addressof(file.contents)] = _name_at(path)
            file.contents.methods = ctypes.pointer(self._table(file.contents.methods))
        return code

    def _deleted(self, vfs: Any, path: int, sync_directory: int) -> int:
        return self._watch.delete(_name_at(path), lambda: self._delete(vfs, path, sync_directory))

    def _table(self, original: Any) -> _Methods:
        address = ctypes.addressof(original.contents)
        if address in self._tables:
            return self._tables[address]
        own, of = _Methods(), original.contents
        words = 1 + _FUNCTIONS_BY_VERSION[min(3, of.version)]
        ctypes.memmove(ctypes.addressof(own), address, words * ctypes.sizeof(ctypes.c_void_p))
        names, watch = self._names, self._watch

        def name(file: Any) -> str:
            return names[ctypes.addressof(file.contents)]

        def close(file: Any) -> int:
            names.pop(ctypes.addressof(file.contents), None)
            return int(of.close(file))

        def read(file: Any, into: int, size: int, offset: int) -> int:
            return watch.read(name(file), offset, lambda: of.read(file, into, size, offset))

        def write(file: Any, data: int, size: int, offset: int) -> int:
            content = ctypes.string_at(data, size)
            return watch.write(name(file), offset, content, lambda: of.write(file, data, size, offset))

        def truncate(file: Any, size: int) -> int:
            return watch.truncate(name(file), size, lambda: of.truncate(file, size))

        def sync(file: Any, flags: int) -> int:
            return watch.sync(name(file), lambda: of.sync(file, flags))

        own.close, own.read = self._keep(_CLOSE(close)), self._keep(_READ(read))
        own.write, own.truncate = self._keep(_READ(write)), self._keep(_TRUNCATE(truncate))
        own.sync = self._keep(_SYNC(sync))
        self._kept.append(of)
        self._tables[address] = own
        return own


def _name_at(path: int) -> str:
    return os.path.basename(ctypes.string_at(path).decode())


def _copy(kind: Any, function: Any) -> Any:
    """A field of a structure changes with it."""
    return kind(ctypes.cast(function, ctypes.c_void_p).value)


@dataclass(frozen=True, slots=True)
class Entry:
    """One call, as it was recorded.

    Attributes:
        kind: `w`rite, `t`runcate, `s`ync, `d`elete.
        offset: Of a write; of a truncation, the new size.
    """

    kind: str
    name: str
    offset: int
    data: bytes


_HEAD = struct.Struct("<cBqI")


class Recorder(Watch):
    """Writes every call down. A change is noted before it is made, a flush when it has been made: so whatever
    the process is killed in the middle of counts as not flushed."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._turn = threading.Lock()

    def _note(self, kind: bytes, name: str, offset: int = 0, data: bytes = b"") -> None:
        with self._turn:
            os.write(self._file, _HEAD.pack(kind, len(name), offset, len(data)) + name.encode() + data)

    def write(self, name: str, offset: int, data: bytes, go: Call) -> int:
        self._note(b"w", name, offset, data)
        return go()

    def truncate(self, name: str, size: int, go: Call) -> int:
        self._note(b"t", name, size)
        return go()

    def sync(self, name: str, go: Call) -> int:
        code = go()
        if code == OK:
            self._note(b"s", name)
        return code

    def delete(self, name: str, go: Call) -> int:
        self._note(b"d", name)
        return go()


def recorded(path: Path) -> Iterator[Entry]:
    """What is in a recorder's file; the last entry may be torn, and is left out then."""
    content = path.read_bytes() if path.exists() else b""
    at = 0
    while at + _HEAD.size <= len(content):
        kind, name_bytes, offset, data_bytes = _HEAD.unpack_from(content, at)
        start = at + _HEAD.size
        at = start + name_bytes + data_bytes
        if at <= len(content):
            name = content[start : start + name_bytes].decode()
            yield Entry(kind.decode(), name, offset, content[start + name_bytes : at])


_CODES = {"read": IOERR_READ, "write": IOERR_WRITE, "sync": IOERR_FSYNC, "full": FULL}


class Faults(Watch):
    """Fails calls as a file says: `{"call": "sync", "file": "-wal", "after": 3}`, or not at all without it.

    call: `read`, `write`, `sync`; or `full`, a write for which there is no room.
    file: What the name of the file ends with.
    after: So many of these calls succeed first [0].
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed_ns = -1
        self._fault: dict[str, Any] = {}
        self._left = 0

    def _strikes(self, call: str, name: str) -> bool:
        try:
            changed_ns = self._path.stat().st_mtime_ns
        except FileNotFoundError:
            changed_ns, self._fault = 0, {}
        if changed_ns and changed_ns != self._changed_ns:
            self._fault = orjson.loads(self._path.read_bytes())
            self._left = self._fault.get("after", 0)
        self._changed_ns = changed_ns
        wanted = self._fault.get("call")
        if (wanted, call) not in (("full", "write"), (call, call)) or not name.endswith(self._fault["file"]):
            return False
        self._left -= 1
        return self._left < 0

    def _or_fail(self, call: str, name: str, go: Call) -> int:
        return _CODES[self._fault["call"]] if self._strikes(call, name) else go()

    def read(self, name: str, offset: int, go: Call) -> int:
        return self._or_fail("read", name, go)

    def write(self, name: str, offset: int, data: bytes, go: Call) -> int:
        return self._or_fail("write", name, go)

    def sync(self, name: str, go: Call) -> int:
        return self._or_fail("sync", name, go)


def break_disk(path: Path, **fault: Any) -> None:
    """From now on, until `mend_disk`."""
    new = path.with_suffix(f".{time.monotonic_ns()}")
    new.write_bytes(orjson.dumps(fault))
    new.rename(path)


def mend_disk(path: Path) -> None:
    path.unlink(missing_ok=True)
