"""A real browser: headless Chromium, driven over its own protocol, as far as tests of the page need it."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_WAIT_S = 15.0


def chromium() -> str | None:
    """Where it is: `CHROMIUM`, or a name of it in the path. None: this machine has none."""
    return os.environ.get("CHROMIUM") or next((path for name in _NAMES if (path := shutil.which(name))), None)


class Tab:
    """One page.

    Attributes:
        complaints: What the browser had to say: errors in the console, exceptions, what the policy refused.
        requests: The addresses that it asked for.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._is_over = asyncio.Event()

    async def listen(self) -> None:
        """Hear what comes, until the browser is gone."""
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                if (answer := self._answers.pop(said["id"], None)) is not None and not answer.done():
                    answer.set_result(said)
                continue
            match said["method"], said["params"]:
                case "Runtime.exceptionThrown", {"exceptionDetails": details}:
                    self.complaints.append(str(details.get("exception", details).get("description", details)))
                case "Log.entryAdded", {"entry": {"level": "error", "text": text}}:
                    self.complaints.append(text)
                case "Emulation.virtualTimeBudgetExpired", _:
                    self._is_over.set()
                case "Network.requestWillBeSent", {"request": {"url": url}}:
                    self.requests.append(url)

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(_WAIT_S):
            said = await answer
        assert "error" not in said, f"{method}: {said['error']}"
        result: dict[str, Any] = said["result"]
        return result

    async def size(self, width: int, height: int = 900, *, is_dark: bool = False) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        await self.ask("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        await self.ask("Emulation.setEmulatedMedia", features=[scheme])

    async def go(self, url: str) -> None:
        await self.ask("Page.navigate", url=url)

    async def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = await self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until an expression is true in the page."""
        script = f"""new Promise((done) => {{
            const look = () => {{
                let is = false;
                try {{ is = Boolean({condition}); }} catch {{ }}
                if (is) done(true); else setTimeout(look, 25);
            }};
            look();
        }})"""
        try:
            await self.run(script)
        except TimeoutError:
            text = await self.run("document.body.innerText.slice(0, 3000)")
            raise AssertionError(f"never: {condition}\n{text}\n{self.complaints}") from None

    async def click(self, selector: str) -> None:
        """With the mouse, in the middle of an element."""
        await self.until(f"document.querySelector({selector!r})")
        place = await self.run(
            f"(() => {{ const e = document.querySelector({selector!r});"
            "e.scrollIntoView({block: 'center'});"
            "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        at = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            await self.ask("Input.dispatchMouseEvent", type=kind, **at)

    async def type(self, text: str) -> None:
        await self.ask("Input.insertText", text=text)

    async def press(self, key: str) -> None:
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowRight": 39}
        given = {"key": key, "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper()))}
        text = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
        await self.ask("Input.dispatchKeyEvent", type="keyDown", **given, **text)
        await self.ask("Input.dispatchKeyEvent", type="keyUp", **given)

    async def pass_time(self, milliseconds: int) -> None:
        """Let so much time pass for the page, at once: its timers fire, and what it asks for is answered."""
        self._is_over.clear()
        policy = {"policy": "pauseIfNetworkFetchesPending", "budget": milliseconds}
        await self.ask("Emulation.setVirtualTimePolicy", **policy)
        async with asyncio.timeout(_WAIT_S):
            await self._is_over.wait()

    async def screenshot(self, file: Path, *, is_whole: bool = False) -> None:
        found = await self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=is_whole)
        file.write_bytes(base64.b64decode(found["data"]))


@asynccontextmanager
async def browser(binary: str) -> AsyncIterator[Tab]:
    """A browser with one tab; it is gone afterwards, with all that it has kept."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        process = await asyncio.create_subprocess_exec(
            *(binary, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--remote-debugging-port=0", f"--user-data-dir={home}", "--no-first-run", "--hide-scrollbars"),
            *("--disable-extensions", "--no-proxy-server", "--disable-background-networking", "about:blank"),
            stderr=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            async with aiohttp.ClientSession() as session:
                async with asyncio.timeout(_WAIT_S):
                    target = await _first_tab(session, Path(home, "DevToolsActivePort"))
                async with session.ws_connect(target, max_msg_size=0) as socket:
                    tab = Tab(socket)
                    listening = asyncio.create_task(tab.listen())
                    for domain in ("Page", "Runtime", "Log", "Network"):
                        await tab.ask(f"{domain}.enable")
                    yield tab
                    listening.cancel()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _first_tab(session: aiohttp.ClientSession, file: Path) -> str:
    while True:
        if file.exists() and len(lines := file.read_text().split("\n")) >= 2:
            async with session.get(f"http://127.0.0.1:{lines[0]}/json/list") as answer:
                for each in await answer.json(content_type=None):
                    if each["type"] == "page":
                        return str(each["webSocketDebuggerUrl"])
        await asyncio.sleep(0.05)
