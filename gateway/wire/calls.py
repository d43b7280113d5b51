"""The call that a stored request becomes, in the API that its backend speaks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import islice
from typing import Any

import orjson

from gateway.wire import salt as salts
from gateway.wire.chat.lessons import CHAT
from gateway.wire.chat.request import ChatOptions, chat_body, offered_tools
from gateway.wire.chat.tools import Tools, tools_of
from gateway.wire.chat.ways import System, Ways
from gateway.wire.item_lessons import ITEMS
from gateway.wire.items import Turn, context
from gateway.wire.lessons import lessons
from gateway.wire.plain_words import CIPHER
from gateway.wire.readers import ChatReader, Reader, ResponsesReader
from gateway.wire.replay import Forms, Receiver, accepted, is_empty_thought, system_first
from gateway.wire.requests import backend_body

NO_SUCH_ROUTE = frozenset({404, 405, 501})
"""How a server says that it has no such route; some say 404 of a model or a response, too."""


SEALED_THOUGHTS = f"reasoning.{CIPHER}"
"""What `include` asks for where thoughts are to go back to a backend that keeps nothing."""

_MODELS_MAX = 256
"""Of how many models of one backend something is remembered. Callers name them, and could make them up."""

_CALLERS_MAY_NOT_CHOOSE = frozenset({"request_id"})
"""vLLM takes it for the name of the call: with another caller's, that one's data are overwritten
(CVE-2026-105755)."""

_THE_GATEWAYS = frozenset(
    {"background", "store", "stream", "previous_response_id", "metadata", "service_tier"}
)
"""Fields that mean something to the gateway itself, whatever a backend is sent of them."""

_SAID_OTHERWISE = frozenset(
    {"include", "instructions", "max_output_tokens", "text", "tool_choice", "tools", "top_logprobs"}
)
"""What the settings set in these is for the request: a chat call says it under other names, or otherwise."""

_SAID_EITHER_WAY = frozenset({"reasoning"})
"""The same, and it is set in the call as well: OpenRouter has the field in both of its APIs."""


class Api(StrEnum):
    """What a backend speaks."""

    RESPONSES = "responses"
    CHAT = "chat"


@dataclass(frozen=True, slots=True)
class Speech:
    """How to talk to one backend.

    Attributes:
        backend: Its name.
        is_certain: It is known, and not only supposed, which API it speaks.
        chat: Its ways, where it speaks chat completions.
        forms: The items it takes, where it speaks the Responses API.
        learned: The ways and forms that single models of it have turned out to want.
        is_for_now: What it has learned is true of one conversation, and not to be remembered.
        rename: What it calls the models that clients name.
        drop, force: Fields of a request that it must not, or must, be sent.
        salts: Its prefix cache is kept apart for each tenant.
    """

    backend: str = ""
    api: Api = Api.RESPONSES
    is_certain: bool = True
    chat: ChatOptions = field(default_factory=ChatOptions)
    forms: Forms = field(default_factory=Forms)
    learned: Mapping[str, tuple[Ways, Forms]] = field(default_factory=dict)
    is_for_now: bool = False
    rename: Mapping[str, str] = field(default_factory=dict)
    drop: frozenset[str] = frozenset()
    force: Mapping[str, Any] = field(default_factory=dict)
    salts: bool = False

    def heard(self, request: dict[str, Any]) -> dict[str, Any]:
        """A request as it is judged, kept and shown: what the settings drop or set was never said."""
        unheard = self.drop | self.force.keys()
        if not unheard:
            return request
        return {k: v for k, v in request.items() if k not in unheard or k in _THE_GATEWAYS}

    @property
    def receiver(self) -> Receiver:
        """Whom earlier turns are told."""
        return Receiver(self.backend, self.api is Api.CHAT, self.forms)

    def body(self, request: dict[str, Any], input: Any, tenant: bytes) -> bytes:
        """The body of a streamed call. Raises: Refusal, if the API cannot say it."""
        said = self._said(request)
        if self.api is Api.CHAT:
            call = chat_body(said, input=input, options=self.chat)
            force = {name: value for name, value in self.force.items() if name not in _SAID_OTHERWISE}
        else:
            said, input = self.formed(self._asking(said), input)
            call = backend_body(said, input=input)
            force = dict(self.force)
        if self.salts:
            force[salts.FIELD] = salts.salt_of(tenant, request.get(salts.FIELD))
        return self._adapted(call, force)

    def check(self, request: dict[str, Any], tenant: bytes) -> None:
        """Raises: Refusal, of a request that the API cannot say."""
        if self.api is Api.CHAT:
            self.body(request, request.get("input"), tenant)

    def tools(self, request: dict[str, Any], input: Any) -> Tools:
        """The tools of a call; what there is to say of them where the API takes them as they are."""
        said = self._said(request)
        return tools_of(said, input) if self.api is Api.CHAT else Tools(shown=tuple(said.get("tools") or ()))

    def offered(self, request: dict[str, Any], input: Any) -> Tools:
        """The same. Raises: Refusal, of tools that are demanded, and cannot be had in this API."""
        if self.api is Api.CHAT:
            return offered_tools(self._said(request), input=input, options=self.chat)[0]
        return self.tools(request, input)

    def _said(self, request: dict[str, Any]) -> dict[str, Any]:
        heard = {n: v for n, v in self.heard(request).items() if n not in _CALLERS_MAY_NOT_CHOOSE}
        return {**heard, **{n: v for n, v in self.force.items() if n in _SAID_OTHERWISE | _SAID_EITHER_WAY}}

    def _asking(self, request: dict[str, Any]) -> dict[str, Any]:
        """The request, asking for sealed thoughts if they must come back to a backend that keeps nothing."""
        asks, include = self.forms.asks_ciphers, request.get("include") or []
        has_asked = SEALED_THOUGHTS in include
        if asks is False and has_asked:
            return {**request, "include": [value for value in include if value != SEALED_THOUGHTS] or None}
        if has_asked or not (asks or (asks is None and request.get("reasoning") is not None)):
            return request
        return {**request, "include": [*include, SEALED_THOUGHTS]}

    def formed(self, request: dict[str, Any], input: Any) -> tuple[dict[str, Any], Any]:
        """A request and its input in the forms that are not refused; not parsed where it need not be."""
        if not self.forms.changes:
            return request, input
        if isinstance(input, orjson.Fragment):
            input = orjson.loads(orjson.dumps(input))
        if not isinstance(input, list):
            return request, input
        input = accepted(input, self.forms)
        if self.forms.system is System.FIRST:
            instructions, input = system_first(request.get("instructions"), input)
            request = {**request, "instructions": instructions}
        return request, input

    def _adapted(self, body: bytes, force: Mapping[str, Any]) -> bytes:
        """A JSON body with the model's name and the fields as this backend wants them."""
        if not (self.drop or force or self.rename):
            return body
        call = {name: value for name, value in orjson.loads(body).items() if name not in self.drop}
        call |= force
        if call.get("model") in self.rename:
            call["model"] = self.rename[call["model"]]
        return orjson.dumps(call)

    # -- what it learns

    def to(self, model: Any) -> Speech:
        """How to talk to one model of it."""
        known = self.learned.get(_name_of(model))
        return self if known is None else self._knowing(*known)

    def _knowing(self, ways: Ways, forms: Forms) -> Speech:
        return replace(self, chat=replace(self.chat, ways=ways), forms=forms)

    def after_refusal(self, said: bytes, sent: bytes) -> Iterator[tuple[str, Speech]]:
        """How a call that was refused could be made otherwise, each with a word for what was learned."""
        if self.api is Api.CHAT:
            for ways in lessons(CHAT, self.chat.ways, said, sent):
                yield ways.name, self._taught(ways.known, self.forms, ways.is_lasting)
        else:
            for forms in lessons(ITEMS, self.forms, said, sent):
                yield forms.name, self._taught(self.chat.ways, forms.known, forms.is_lasting)

    def _taught(self, ways: Ways, forms: Forms, is_lasting: bool) -> Speech:
        return replace(self._knowing(ways, forms), is_for_now=self.is_for_now or not is_lasting)

    def after_answer(self, reader: Reader, output: list[dict[str, Any]]) -> Speech:
        """The same, with what an answer shows: under which name thoughts come, and that they come empty."""
        name = reader.reasoning_field if isinstance(reader, ChatReader) else None
        ways, forms = self.chat.ways, self.forms
        if name is not None and ways.reasoning_field is None:
            ways = replace(ways, reasoning_field=name)
        if self.api is Api.RESPONSES and forms.asks_ciphers is None and any(map(is_empty_thought, output)):
            forms = replace(forms, asks_ciphers=True)
        return self._knowing(ways, forms)

    def remembering(self, model: Any, other: Speech) -> Speech:
        """This one, for a model with the ways and forms of the other one, by which it has answered."""
        now = self.to(model)
        if other.is_for_now or (other.chat.ways, other.forms) == (now.chat.ways, now.forms):
            return self
        kept = dict(islice(self.learned.items(), max(0, len(self.learned) - _MODELS_MAX + 1), None))
        return replace(self, learned={**kept, _name_of(model): (other.chat.ways, other.forms)})

    def target(self, target: str) -> str:
        """Where a call goes whose client asked for `…/responses`."""
        if self.api is Api.RESPONSES:
            return target
        path, question, query = target.partition("?")
        return f"{path.removesuffix('/responses')}/chat/completions{question}{query}"

    def reader(self, response_id: str, request: dict[str, Any], input: Any) -> Reader:
        """What makes events of the answer."""
        if self.api is Api.RESPONSES:
            return ResponsesReader()
        return ChatReader(response_id, self.tools(request, input), think_tags=self.chat.think_tags)


def _name_of(model: Any) -> str:
    """A request may name no model: then the backend's own."""
    return model if isinstance(model, str) else ""


def request_of(stored: bytes) -> dict[str, Any]:
    """A stored request."""
    request: dict[str, Any] = orjson.loads(stored)
    return request


def input_of(stored: bytes, turns: list[Turn], to: Speech) -> Any:
    """A stored input, after the turns that it goes on from; not parsed where it is to be said as it is."""
    if to.api is Api.RESPONSES and not turns:
        return None if stored == b"null" else orjson.Fragment(stored)
    new_input = orjson.loads(stored)
    return context(turns, new_input, to.receiver) if turns else new_input


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
