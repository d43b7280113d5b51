"""The call that a stored request becomes, in the API that its backend speaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from gateway.wire import salt as salts
from gateway.wire.chat.request import ChatOptions, chat_body
from gateway.wire.chat.tools import tools_of
from gateway.wire.items import Turn, context
from gateway.wire.readers import ChatReader, Reader, ResponsesReader
from gateway.wire.requests import backend_body

NO_SUCH_ROUTE = frozenset({404, 405, 501})
"""How a server says that it has no such route; some say 404 of a model or a response, too."""


_CALLERS_MAY_NOT_CHOOSE = frozenset({"request_id"})
"""vLLM takes it for the name of the call: with another caller's, that one's data are overwritten
(CVE-2026-105755)."""


class Api(StrEnum):
    """What a backend speaks."""

    RESPONSES = "responses"
    CHAT = "chat"


@dataclass(frozen=True, slots=True)
class Speech:
    """How to talk to one backend.

    Attributes:
        is_certain: It is known, and not only supposed, which API it speaks.
        chat: Its ways, where it speaks chat completions.
        rename: What it calls the models that clients name.
        drop, force: Fields of a request that it must not, or must, be sent.
        salts: Its prefix cache is kept apart for each tenant.
    """

    api: Api = Api.RESPONSES
    is_certain: bool = True
    chat: ChatOptions = field(default_factory=ChatOptions)
    rename: Mapping[str, str] = field(default_factory=dict)
    drop: frozenset[str] = frozenset()
    force: Mapping[str, Any] = field(default_factory=dict)
    salts: bool = False

    def body(self, request: dict[str, Any], input: Any, tenant: bytes) -> bytes:
        """The body of a streamed call. Raises: Refusal, if the API cannot say it."""
        request = {name: value for name, value in request.items() if name not in _CALLERS_MAY_NOT_CHOOSE}
        if self.api is Api.CHAT:
            call = chat_body(request, input=input, options=self.chat)
        else:
            call = backend_body(request, input=input)
        salt = {salts.FIELD: salts.salt_of(tenant, request.get(salts.FIELD))} if self.salts else {}
        return self._adapted(call, {**self.force, **salt})

    def check(self, request: dict[str, Any], tenant: bytes) -> None:
        """Raises: Refusal, of a request that the API cannot say."""
        if self.api is Api.CHAT:
            self.body(request, request.get("input"), tenant)

    def _adapted(self, body: bytes, force: Mapping[str, Any]) -> bytes:
        """A JSON body with the model's name and the fields as this backend wants them."""
        if not (self.drop or force or self.rename):
            return body
        call = {name: value for name, value in orjson.loads(body).items() if name not in self.drop}
        call |= force
        if call.get("model") in self.rename:
            call["model"] = self.rename[call["model"]]
        return orjson.dumps(call)

    def target(self, target: str) -> str:
        """Where a call goes whose client asked for `…/responses`."""
        if self.api is Api.RESPONSES:
            return target
        path, question, query = target.partition("?")
        return f"{path.removesuffix('/responses')}/chat/completions{question}{query}"

    def reader(self, response_id: str, request: dict[str, Any]) -> Reader:
        """What makes events of the answer."""
        if self.api is Api.CHAT:
            return ChatReader(response_id, tools_of(request), think_tags=self.chat.think_tags)
        return ResponsesReader()


def request_of(stored: bytes) -> dict[str, Any]:
    """A stored request."""
    request: dict[str, Any] = orjson.loads(stored)
    return request


def input_of(stored: bytes, turns: list[Turn], api: Api) -> Any:
    """A stored input, after the turns that it goes on from; not parsed where it is to be said as it is."""
    if api is Api.RESPONSES and not turns:
        return None if stored == b"null" else orjson.Fragment(stored)
    new_input = orjson.loads(stored)
    return context(turns, new_input) if turns else new_input


def private_bytes(credential: tuple[str, str] | None, headers: dict[str, str]) -> bytes:
    """A caller's credential and private headers, to be sealed."""
    return orjson.dumps([credential, headers])


def private_of(text: bytes) -> tuple[tuple[str, str] | None, dict[str, str]]:
    """What `private_bytes` was given."""
    credential, headers = orjson.loads(text)
    return (None if credential is None else tuple(credential)), headers


def headers_of(stored: bytes) -> dict[str, str]:
    """The caller's headers that were stored with a job."""
    headers: dict[str, str] = orjson.loads(stored)
    return headers
