"""A real Prometheus on a free port, with our rules made quick: minutes there are seconds here."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.acceptance.harness import within
from tests.deploy.house import RULES

PROMETHEUS = shutil.which("prometheus")
_QUICKER = (
    (r"^(\s+for:) \w+$", r"\1 0s"),
    (r"(start_time_seconds\{.*\})\[15m\]", r"\1[20s]"),
    (r"\[\d+[mh]\]", "[6s]"),
    (r"(oldest_seconds\)) > 600", r"\1 > 0.5"),
)


def quick(rules: str) -> str:
    """The same rules, for a test's retry_policy."""
    for pattern, replacement in _QUICKER:
        rules, count = re.subn(pattern, replacement, rules, flags=re.MULTILINE)
        assert count, pattern
    return rules


class Prometheus:
    """One process, which scrapes one gateway twice a second."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._url = ""
        self._process: asyncio.subprocess.Process | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self, admin: str) -> None:
        """Args: admin: URL of the gateway's admin port."""
        self._directory.mkdir()
        (self._directory / "rules.yml").write_text(quick(RULES.read_text()))
        scrape = {
            "job_name": "backburner",
            "static_configs": [{"targets": [admin.removeprefix("http://")]}],
        }
        settings = {
            "global": {
                "scrape_interval": "500ms",
                "scrape_timeout": "500ms",
                "evaluation_interval": "250ms",
            },
            "rule_files": ["rules.yml"],
            "scrape_configs": [scrape],
        }
        (self._directory / "prometheus.yml").write_text(yaml.safe_dump(settings))
        with socket.create_server(("127.0.0.1", 0)) as free:
            place = f"127.0.0.1:{free.getsockname()[1]}"
        self._url = f"http://{place}"
        self._process = await asyncio.create_subprocess_exec(
            str(PROMETHEUS),
            f"--config.file={self._directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._directory / 'data'}",
            f"--web.listen-address={place}",
            "--log.level=error",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._session = aiohttp.ClientSession()
        await within(self._until_it_scrapes())

    async def _until_it_scrapes(self) -> None:
        while True:
            try:
                if await self.query("backburner_build_info"):
                    return
            except aiohttp.ClientError:
                assert self._process is not None
                assert self._process.returncode is None, "Prometheus ended"
            await asyncio.sleep(0.05)

    async def query(self, promql: str) -> list[dict[str, Any]]:
        """What an instant query finds; each has `metric` and `value`."""
        assert self._session is not None
        async with self._session.get(f"{self._url}/api/v1/query", params={"query": promql}) as answer:
            said = await answer.json()
        assert said["status"] == "success", (promql, said.get("error"))
        found: list[dict[str, Any]] = said["data"]["result"]
        return found

    async def until(self, promql: str, *, is_found: bool = True) -> None:
        """Poll until the query finds something, or nothing any more."""

        async def look() -> None:
            while bool(await self.query(promql)) is not is_found:
                await asyncio.sleep(0.1)

        try:
            await within(look(), 40)
        except TimeoutError:
            raise AssertionError(f"{'not found' if is_found else 'still there'}: {promql}") from None

    async def fires(self, *alerts: str) -> None:
        for alert in alerts:
            await self.until(_firing(alert))

    async def clears(self, *alerts: str) -> None:
        for alert in alerts:
            await self.until(_firing(alert), is_found=False)

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()
        if self._process is not None:
            self._process.terminate()
            await within(self._process.wait())


def _firing(alert: str) -> str:
    return f'ALERTS{{alertname="{alert}", alertstate="firing"}}'
