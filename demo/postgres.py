"""A throw-away PostgreSQL, made of the machine's own binaries."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

_PLACES = ("/usr/lib/postgresql", "/usr/local/pgsql", "/opt/homebrew/opt")
_STARTED_S = 30
_PORTS_TRIED = 5


def binaries() -> Path | None:
    """The directory of the newest `initdb`; None if there is none."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    each = [path.parent for place in _PLACES for path in Path(place).glob("*/bin/initdb")]
    return max(each, key=lambda path: int("".join(filter(str.isdigit, path.parent.name)) or 0), default=None)


class Postgres:
    """One server on a free port of this machine. It must be stopped.

    Args:
        fsync: Whether commits reach the disk; without, it is faster, and survives all but the machine.
        primary: Of which it is a standby; None: of none.
        settings: More of its settings, by name.
    """

    def __init__(
        self,
        *,
        fsync: bool = False,
        primary: Postgres | None = None,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        found = binaries()
        assert found is not None, "look before"
        self._binaries = found
        self._fsync = fsync
        self._settings = settings
        self._directory = Path(tempfile.mkdtemp(prefix="backburner-pg-"))
        self._user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self._as_user: dict[str, Any] = {}
        if os.geteuid() == 0:  # which PostgreSQL refuses to run as
            entry = pwd.getpwnam("postgres")
            self._as_user = {"user": entry.pw_uid, "group": entry.pw_gid}
            os.chown(self._directory, entry.pw_uid, entry.pw_gid)
        self.port = 0
        self._made = 0
        self._process: subprocess.Popen[bytes] | None = None
        if primary is None:
            self._run(
                "initdb", "-D", str(self._data), "-U", self._user, "-A", "trust", "--no-sync", "-E", "UTF8"
            )
        else:
            where = ("-h", "127.0.0.1", "-p", str(primary.port), "-U", self._user)
            self._run("pg_basebackup", "-D", str(self._data), *where, "-R", "-c", "fast", "--no-sync")
        self._start_on_a_free_port()

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments]
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, timeout=60, cwd=self._directory, **self._as_user
        )

    def url(self, database: str) -> str:
        return f"postgresql://{self._user}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _start_on_a_free_port(self) -> None:
        """One that was free a moment ago: somebody else may take it first."""
        for tries_left in reversed(range(_PORTS_TRIED)):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
            try:
                return self.start()
            except AssertionError as error:
                if not tries_left or "Address already in use" not in str(error):
                    raise
        raise AssertionError("there is a last try")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self._directory),
            "fsync": "on" if self._fsync else "off",
            "full_page_writes": "on" if self._fsync else "off",
            "max_connections": "200",
            "shared_buffers": "64MB",
            "max_wal_size": "512MB",
            **self._settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binaries / "postgres"), "-D", str(self._data), *options],
                stdout=log,
                stderr=log,
                cwd=self._directory,
                **self._as_user,
            )
        deadline_s = time.monotonic() + _STARTED_S
        check = [str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(check, check=False, timeout=10).returncode:
            assert self._process.poll() is None, (self._directory / "log").read_text()[-2000:]
            assert time.monotonic() < deadline_s, "it does not answer"
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it at once: connections are cut, nothing committed is lost. It can be started again."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def kill9(self) -> None:
        """All of its processes at once, as when the machine is gone."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(30)
        self._process = None

    def promote(self) -> None:
        """A standby takes writes from now on."""
        self._run("pg_ctl", "promote", "-D", str(self._data), "-w")

    def pause(self) -> None:
        """It stands still, with all its connections open, until `go_on`."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for pid in (self.pid, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    @contextmanager
    def pooled(self) -> Iterator[str]:
        """PgBouncer in transaction mode before it, for the block: the beginning of its URLs."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = self._directory / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host=127.0.0.1 port={self.port} user={self._user}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\npool_mode = transaction\n"
            f"unix_socket_dir =\nlogfile = {self._directory}/pgbouncer.log\n"
        )
        program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
        pooler = subprocess.Popen([program, "-q", str(settings)], cwd=self._directory, **self._as_user)
        try:
            deadline_s = time.monotonic() + _STARTED_S
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert time.monotonic() < deadline_s, "the pooler does not answer"
                time.sleep(0.05)
            yield f"postgresql://{self._user}@127.0.0.1:{port}"
        finally:
            pooler.terminate()
            pooler.wait(10)

    def database(self) -> str:
        """The URL of a new, empty database."""
        self._made += 1
        name = f"made{self._made}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", self._user, name)
        return self.url(name)

    async def new_database(self) -> str:
        """The same, while others go on."""
        return await asyncio.to_thread(self.database)

    def remove(self) -> None:
        """Stop it, and leave nothing behind."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._directory, ignore_errors=True)


@contextmanager
def postgres(
    *, fsync: bool = False, settings: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Postgres]:
    """One for the block."""
    server = Postgres(fsync=fsync, settings=settings)
    try:
        yield server
    finally:
        server.remove()
