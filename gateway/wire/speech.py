"""How to talk to one backend: what all backend APIs share, and what each must say for itself.

A new backend API is one class beside those in `speech_responses.py` and `chat/speech.py`, a member of `Api`,
and its settings in `outbound.backend`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import islice
from typing import Any, ClassVar, Self

import orjson

from gateway.wire.answers.readers import AnswerReader
from gateway.wire.bodies import cache_salt as salts
from gateway.wire.chat.tools import Tools
from gateway.wire.chat.ways import Ways
from gateway.wire.conversation.replay import Forms, ReplayTarget

Request = dict[str, Any]
Preferences = Forms | Ways
"""What refusals and answers of a model teach; each API has its own kind."""

_MODELS_MAX = 256
"""Models of one backend of which something is remembered. Callers name models, and could make them up."""

_FORBIDDEN_FIELDS = frozenset({"request_id"})
"""vLLM takes it for the name of the call: with another caller's, that one's data are overwritten
(CVE-2026-105755)."""

_GATEWAY_FIELDS = frozenset(
    {"background", "store", "stream", "previous_response_id", "metadata", "service_tier"}
)
"""Fields that the gateway itself acts on, whatever a backend is sent of them."""

RENAMED_FIELDS = frozenset(
    {"include", "instructions", "max_output_tokens", "text", "tool_choice", "tools", "top_logprobs"}
)
"""Fields that another API has under another name or in another form. If the settings set one of them, it is
set in the request, and the translation carries it over."""

_SHARED_FIELDS = frozenset({"reasoning"})
"""The same, and the field is set in the call as well: OpenRouter has it in both of its APIs."""


class Api(StrEnum):
    """The API that a backend speaks."""

    RESPONSES = "responses"
    CHAT = "chat"


NO_SUCH_ROUTE = frozenset({404, 405, 501})
"""Statuses of a server without this route; some say 404 of a model or a response, too."""


@dataclass(frozen=True, slots=True)
class Speech(ABC):
    """How to talk to one backend.

    Attributes:
        api: The API of this class.
        is_translated: The gateway translates requests and answers, and runs plain requests itself.
        backend: The backend's name.
        is_certain: The backend is known to speak this API; else it is a guess.
        learned: What single models have turned out to want.
        is_for_now: What was learned holds for one conversation only, and is not remembered.
        rename: The backend's names of models, by the names that clients use.
        drop, force: Fields of a request that must not, or must, be sent.
        salts: The prefix cache is kept apart for each tenant.
    """

    api: ClassVar[Api]
    is_translated: ClassVar[bool]

    backend: str = ""
    is_certain: bool = True
    learned: Mapping[str, Preferences] = field(default_factory=dict)
    is_for_now: bool = False
    rename: Mapping[str, str] = field(default_factory=dict)
    drop: frozenset[str] = frozenset()
    force: Mapping[str, Any] = field(default_factory=dict)
    salts: bool = False

    # -- what an API says for itself

    @property
    @abstractmethod
    def replay_target(self) -> ReplayTarget:
        """The backend as the receiver of earlier turns."""

    @abstractmethod
    def check(self, request: Request, tenant: bytes) -> None:
        """Raises: Refusal, of a request that the API cannot say."""

    @abstractmethod
    def tools(self, request: Request, input: Any) -> Tools:
        """The tools of a call, and what the client is told of them."""

    @abstractmethod
    def offered(self, request: Request, input: Any) -> Tools:
        """The same. Raises: Refusal, of tools that are demanded but do not exist in this API."""

    @abstractmethod
    def target(self, target: str) -> str:
        """The target of a call whose client asked for `…/responses`."""

    @abstractmethod
    def reader(self, response_id: str, request: Request, input: Any) -> AnswerReader:
        """Makes events of the answer."""

    @abstractmethod
    def after_refusal(self, said: bytes, sent: bytes) -> Iterator[tuple[str, Self]]:
        """Other ways to make a refused call, each with the name of the lesson."""

    @abstractmethod
    def after_answer(self, reader: AnswerReader, output: list[dict[str, Any]]) -> Self:
        """The same speech, with what an answer has shown."""

    @abstractmethod
    def formed(self, request: Request, input: Any) -> tuple[Request, Any]:
        """A request and its input in the forms that the backend does not refuse."""

    @abstractmethod
    def _call(self, request: Request, input: Any) -> tuple[bytes, dict[str, Any]]:
        """The body of a streamed call, and the fields that the settings set in it."""

    @property
    @abstractmethod
    def known(self) -> Preferences:
        """What is known of the model that is called."""

    @abstractmethod
    def knowing(self, known: Preferences) -> Self:
        """The same speech, for a model of which this is known."""

    # -- what all of them share

    def heard(self, request: Request) -> Request:
        """A request as it is judged, kept and shown: without the fields that the settings drop or set."""
        unheard = self.drop | self.force.keys()
        if not unheard:
            return request
        return {k: v for k, v in request.items() if k not in unheard or k in _GATEWAY_FIELDS}

    def body(self, request: Request, input: Any, tenant: bytes) -> bytes:
        """The body of a streamed call. Raises: Refusal, if the API cannot say it."""
        call, force = self._call(self._said(request), input)
        if self.salts:
            force[salts.FIELD] = salts.salt_of(tenant, request.get(salts.FIELD))
        return self._adapted(call, force)

    def _said(self, request: Request) -> Request:
        heard = {n: v for n, v in self.heard(request).items() if n not in _FORBIDDEN_FIELDS}
        return {**heard, **{n: v for n, v in self.force.items() if n in RENAMED_FIELDS | _SHARED_FIELDS}}

    def _adapted(self, body: bytes, force: Mapping[str, Any]) -> bytes:
        """A JSON body with the model's name and the fields as this backend wants them."""
        if not (self.drop or force or self.rename):
            return body
        call = {name: value for name, value in orjson.loads(body).items() if name not in self.drop}
        call |= force
        if call.get("model") in self.rename:
            call["model"] = self.rename[call["model"]]
        return orjson.dumps(call)

    def to(self, model: Any) -> Self:
        """How to talk to one model of the backend."""
        known = self.learned.get(_name_of(model))
        return self if known is None else self.knowing(known)

    def remembering(self, model: Any, other: Speech) -> Self:
        """This speech, for a model with what is known in the other one, by which it has answered."""
        if other.api is not self.api or other.is_for_now or other.known == self.to(model).known:
            return self
        kept = dict(islice(self.learned.items(), max(0, len(self.learned) - _MODELS_MAX + 1), None))
        return replace(self, learned={**kept, _name_of(model): other.known})


def _name_of(model: Any) -> str:
    """A request may name no model: then the backend's own."""
    return model if isinstance(model, str) else ""
