"""A plain client for what is not under load: creates a few jobs, cancels, polls."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.load import KEY

HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


class Client:
    """One connection to a server of ours."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def close(self) -> None:
        self._connection.close()

    def call(self, method: str, path: str, body: object = None) -> Any:
        """The JSON of the answer. Raises: RuntimeError unless it is 200."""
        self._connection.request(method, path, None if body is None else json.dumps(body), HEADERS)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
        return json.loads(text)

    def create(self, model: str, **fields: object) -> str:
        """A background job's id."""
        body = {"model": model, "input": "Good day", "background": True, **fields}
        return str(self.call("POST", "/v1/responses", body)["id"])

    def create_streamed(self, model: str) -> str:
        """The id of a job that can be followed later on; its own stream is left after the first event."""
        body = {"model": model, "input": "Good day", "background": True, "stream": True}
        self._connection.request("POST", "/v1/responses", json.dumps(body), HEADERS)
        answer = self._connection.getresponse()
        while not (line := answer.readline()).startswith(b"data: "):
            if not line:
                raise RuntimeError(f"POST /v1/responses: {answer.status}")
        self._connection.close()  # it opens another one by itself
        return str(json.loads(line[6:])["response"]["id"])

    def until_over(self, response_id: str, *, seconds: float = 120) -> str:
        """The status of a job at its end."""
        until = time.monotonic() + seconds
        while True:
            status = str(self.call("GET", f"/v1/responses/{response_id}")["status"])
            if status not in ("queued", "in_progress") or time.monotonic() > until:
                return status
            time.sleep(0.05)


@contextmanager
def client(port: int) -> Iterator[Client]:
    """One, until the end of the block."""
    made = Client(port)
    try:
        yield made
    finally:
        made.close()


def rank(values: list[float], share: float) -> float:
    """The value below which so large a share lies."""
    return sorted(values)[int((len(values) - 1) * share)]
