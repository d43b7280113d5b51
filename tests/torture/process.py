"""A helper of a trial as a process of its own, so that it is not slowed by what the trial itself does.

It is started as `python -m MODULE`, says its port on its first line, answers JSON over HTTP, and is killed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any, Self

import aiohttp
import orjson

from tests.acceptance.harness import ROOT, within


class NotStarted(Exception):
    """A process that a trial needs did not come up in time: nothing was tried, so no promise is broken."""


class Helper:
    """An async context: the process runs inside it.

    Attributes:
        port: Where it serves.
    """

    module = ""

    def __init__(self, *arguments: str) -> None:
        self.port = 0
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self.module, *self._arguments),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        try:
            self.ports = [int(word) for word in (await within(self._process.stdout.readline())).split()]
            self.port = self.ports[0]
        except (TimeoutError, IndexError, ValueError):
            raise NotStarted(f"{self.module} did not say its port in time") from None
        finally:
            if not self.port:  # nobody else will: a context that was not entered is not left
                await self.__aexit__()
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A question to its last port, which is the one that controls it."""
        assert self._session is not None
        url = f"http://127.0.0.1:{self.ports[-1]}{path}"
        async with self._session.request(method, url, data=orjson.dumps(body)) as answer:
            assert answer.status == 200, await answer.text()
            return orjson.loads(await answer.read())
