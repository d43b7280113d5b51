"""Calls that the gateway itself makes of a model server: always streamed, each on a connection of its own.

What a backend does wrong comes out as an `UpstreamFailed` with a message for the client, in which neither
an address nor a key stands. Where a call goes next that nobody has answered is the business of `tries`;
whether a job is run again, of `gateway.core.retry`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import aiohttp

from gateway import loop
from gateway.config import TenantSettings, UpstreamSettings
from gateway.core.call import BackendCall
from gateway.core.reason import Reason
from gateway.core.retry import RetryPolicy, is_callers_limit
from gateway.core.upstream import OtherApi, Upstream, UpstreamFailed
from gateway.observe import Observer
from gateway.outbound.answer import read_answer, read_error
from gateway.outbound.budget import RetryBudget
from gateway.outbound.calls import Unanswered, each_answer
from gateway.outbound.checks import Checks, find_api
from gateway.outbound.client import asked_wait_s
from gateway.outbound.connector import BackendConnector
from gateway.outbound.jobcall import JobCall
from gateway.outbound.lane.quick import HttpQuickCalls
from gateway.outbound.plain import HttpPlainCalls
from gateway.outbound.pool import Pool, Replica
from gateway.outbound.redactor import Redactor
from gateway.outbound.tries import Failover
from gateway.wire.chat.request import ChatOptions
from gateway.wire.chat.speech import ChatSpeech
from gateway.wire.chat.ways import System, ThoughtReplay, Ways
from gateway.wire.conversation.replay import Forms
from gateway.wire.failures import failure
from gateway.wire.http.head import CREDENTIALS, Credential
from gateway.wire.http.headers import of_job
from gateway.wire.speech import NO_SUCH_ROUTE, Api, Speech
from gateway.wire.speech_responses import ResponsesSpeech


class HttpBackend:
    """One named backend.

    Args:
        session: For questions of the gateway's own; it keeps no connections.
        plain_session: For requests that clients wait for; it keeps connections.
        event_bytes_max: Of one event, and of an answer that is not a stream.
        withheld: Names, in lower case, of headers that end at the gateway in any case.

    Attributes:
        checks: Its health checks.
        plain: Calls for requests that clients wait for.
        quick: The same for the fast lane.
        sees_callers: It gets the callers' own credentials, and so can tell them apart itself.
        withheld: Names, in lower case, of headers of the caller that it does not get.
    """

    def __init__(
        self,
        name: str,
        session: aiohttp.ClientSession,
        plain_session: aiohttp.ClientSession,
        settings: UpstreamSettings,
        *,
        event_bytes_max: int,
        observer: Observer,
        tenants: TenantSettings | None = None,
        withheld: frozenset[str] = frozenset(),
    ) -> None:
        self.name = name
        self.settings = settings
        self.pool = Pool(settings)
        self.api_key = settings.read_api_key()
        self.retry_policy = RetryPolicy(
            down_wait_s=settings.down_wait_s,
            put_offs_max=settings.retry_after_times_max,
            put_off_first_s=settings.retry_after_default_s,
            put_off_max_s=settings.retry_after_max_s,
            backoff_first_s=settings.backoff_first_ms / 1000,
            backoff_max_s=settings.backoff_max_ms / 1000,
        )
        self._budget = RetryBudget(
            percent=settings.retry_percent_max,
            min_per_s=settings.retry_min_per_s,
            window_s=settings.retry_window_s,
            monotonic=time.monotonic,
        )
        self.own_headers = {header: value.get_secret_value() for header, value in settings.headers.items()}
        tenants = tenants or TenantSettings()
        has_own_key = self.api_key is not None or bool(
            CREDENTIALS & {name.lower() for name in self.own_headers}
        )
        self.sees_callers = tenants.passes_credentials and not has_own_key
        self.withheld = withheld if self.sees_callers else withheld | CREDENTIALS
        if tenants.header is not None:
            self.withheld |= {tenants.header.lower()}
        self.checks = Checks(
            name, settings, self.pool, self._authorization(None), observer, has_own_key=has_own_key
        )
        self.plain = HttpPlainCalls(
            plain_session,
            settings,
            lambda first: self._tries(is_background=False, first=first),
            own=self._authorization(None),
            withheld=self.withheld,
            observer=observer,
        )
        self._connector = BackendConnector(settings.connect_timeout_s)
        self.quick = HttpQuickCalls(
            self.pool, self._budget, self._connector, settings, self.plain.headers, observer
        )
        self._session = session
        self._under_way: dict[str, Replica] = {}  # by job
        self._event_bytes_max = event_bytes_max
        self._observer = observer
        self._speeches = _speeches(name, settings)
        self.speech = self._speeches[Api.RESPONSES if settings.api == "auto" else Api(settings.api)]

    def learn(self, api: Api) -> None:
        """The backend has shown which API it speaks."""
        speech = self.speech if api is self.speech.api else self._speeches[api]
        self.speech = replace(speech, is_certain=True)

    async def ask(self, credential: Credential | None) -> Speech:
        if not self.speech.is_certain and (replica := self.pool.pick()) is not None:
            headers = self._authorization(credential)
            api = await find_api(self._session, replica, self.settings, headers, self.name)
            if api is not None:
                self.learn(api)
        return self.speech

    def learned(self, lesson: str) -> None:
        self._observer.lesson_learned(self.name, lesson)

    def remember(self, model: Any, speech: Speech) -> None:
        self.speech = self.speech.remembering(model, speech)

    def _tries(
        self, *, is_background: bool, is_again: bool = False, first: Replica | None = None
    ) -> Failover:
        """Where one call goes."""
        rounds_max = 2 if len(self.pool.replicas) == 1 else 1  # plain: to another one, or once more
        return Failover(
            self.name,
            self.pool,
            self._budget,
            self.retry_policy,
            self._observer,
            rounds_max=self.settings.connect_attempts_max if is_background else rounds_max,
            is_background=is_background,
            is_again=is_again,
            first=first,
        )

    @property
    def unreached_s(self) -> float:
        return self.pool.unreached_s

    @property
    def retry_in_s(self) -> float:
        return self._budget.free_in_s

    def book_retry(self) -> None:
        if self._budget.book() > 0:
            self.retry_refused()

    def retry_refused(self) -> None:
        self._observer.retry_refused(self.name)

    async def stream(self, call: BackendCall) -> AsyncGenerator[Upstream, None]:
        failed: UpstreamFailed | None = None
        redactor, request_id = self._redactor(call), _request_id(call.job_id)
        tries = self._tries(is_background=call.is_background, is_again=call.is_again)
        kind = "background" if call.is_background else "passthrough"
        limit_s = self.settings.head_timeout_s if call.is_background else self.settings.plain_head_timeout_s

        async def post(replica: Replica, _limit: loop.timeout) -> JobCall:
            self._note(call, replica, request_id, None)
            headers = self._headers(call, request_id)
            return await JobCall.post(self._connector, replica.origin, call.target, headers, call.body)

        async with aclosing(each_answer(tries, post, limit_s, kind, self._observer)) as answers:
            async for replica, answer in answers:
                self._under_way[call.job_id] = replica
                try:
                    if isinstance(answer, Unanswered):
                        message = answer.refusal.message + self._for_how_long()
                        later = UpstreamFailed(failure(message), answer.reason)
                        failed = _better(failed, later)
                        continue
                    self._note(call, replica, request_id, answer.status)
                    if answer.status >= 400:
                        failed = _better(failed, await self._refused(call, replica, tries, answer))
                        continue
                    self.pool.answered(replica, answer.status, takes_jobs=call.is_background)
                    if answer.status < 300 and not self.speech.is_certain:
                        self.learn(self.speech.api)
                    items = read_answer(
                        answer,
                        idle_timeout_s=self.settings.idle_timeout_s,
                        event_bytes_max=self._event_bytes_max,
                        kind=kind,
                        observer=self._observer,
                        taker=redactor.taker(call.taker),
                    )
                    async with aclosing(items):
                        try:
                            async for item in items:
                                yield redactor.item(item)
                        finally:
                            answer.close()  # not released to a pool: closing is what stops the model
                    return
                finally:
                    del self._under_way[call.job_id]
                    self._observer.tracing.call_ended(call.job_id)
        failed = failed or self._unavailable()
        if failed.status in NO_SUCH_ROUTE and not call.speech.is_certain:
            found = await self.ask(call.credential)
            if found.api is not call.speech.api:
                yield OtherApi(found)
                return
        yield redactor.item(replace(failed, unreached_s=self.unreached_s))

    def _unavailable(self) -> UpstreamFailed:
        """What there is to say where no replica was even asked."""
        why = failure("The backend cannot be reached at the moment.")
        return UpstreamFailed(why, Reason.UNAVAILABLE, retry_after_s=self.settings.breaker_open_s)

    def _note(self, call: BackendCall, replica: Replica, request_id: str, status: int | None) -> None:
        """For the log: where the call of a job went, and how it was answered."""
        if call.is_background:
            number = self.pool.replicas.index(replica)
            self._observer.job_called(call.job_id, number, request_id, status)

    async def _refused(
        self, call: BackendCall, replica: Replica, tries: Failover, answer: JobCall
    ) -> UpstreamFailed:
        """Read an error answer. If the backend has put a job off, other jobs stay away for a while too,
        unless only the rate limit of this job's caller is used up. Plain requests are not held back: their
        clients decide whether to retry."""
        try:
            failed = await read_error(answer, idle_timeout_s=self.settings.idle_timeout_s)
        finally:
            answer.close()
        asked_s = asked_wait_s(answer.headers, datetime.now(UTC))
        failed = replace(failed, retry_after_s=failed.retry_after_s if asked_s is None else asked_s)
        is_put_off = call.is_background and failed.reason is Reason.PUT_OFF
        is_callers = is_put_off and is_callers_limit(failed.failure, is_limited_alone=call.is_limited_alone)
        takes_jobs = call.is_background and (is_callers or not is_put_off)
        self.pool.answered(replica, answer.status, takes_jobs=takes_jobs)
        if not is_put_off:
            return failed
        tries.put_off()
        if is_callers:
            return replace(failed, is_callers=True)
        return replace(
            failed, retry_after_s=self.pool.put_off(replica, failed.retry_after_s, self.retry_policy)
        )

    def rest(self, job_id: str, asked_s: float | None) -> None:
        self.pool.put_off(self._under_way[job_id], asked_s, self.retry_policy)

    def _for_how_long(self) -> str:
        """What to add to a failure of a backend that has been out of reach for some time."""
        seconds = self.unreached_s
        return f" It has been so for {seconds:.0f} s." if seconds >= 1 else ""

    def _headers(self, call: BackendCall, request_id: str) -> dict[str, str]:
        key = f"{call.job_id}-{call.version}" if call.version else call.job_id
        own = self._authorization(call.credential)
        traced = self._observer.tracing.context(call.job_id)
        return of_job(call.headers, request_id=request_id, key=key, own=own, traced=traced)

    def _authorization(self, credential: Credential | None) -> dict[str, str]:
        if self.api_key is not None:
            return {"Authorization": f"Bearer {self.api_key}", **self.own_headers}
        if credential is not None and self.sees_callers:
            return {credential.name: credential.value, **self.own_headers}
        return dict(self.own_headers)

    def _redactor(self, call: BackendCall) -> Redactor:
        secrets = [f"Bearer {self.api_key}"] if self.api_key is not None else []
        secrets += [call.credential.value] if call.credential is not None else []
        return Redactor([*secrets, *self.own_headers.values()], call.headers)


def _speeches(name: str, settings: UpstreamSettings) -> dict[Api, Speech]:
    """How to talk to the backend in each API that it may turn out to speak."""
    field, system = settings.reasoning_field, System(settings.system_messages)
    thoughts = {"auto": ThoughtReplay.OPEN_TURN, "none": ThoughtReplay.NEVER}.get(field, ThoughtReplay.ALL)
    chat = ChatOptions(
        max_tokens_field=settings.max_tokens_field,
        refuses_tools=settings.unsupported_tools == "refuse",
        think_tags=settings.think_tags,
        ways=Ways(
            has_developer_role=settings.developer_role,
            system=system,
            thoughts=thoughts,
            reasoning_field=field if thoughts is ThoughtReplay.ALL else None,
        ),
    )
    common: dict[str, Any] = {
        "backend": name,
        "is_certain": settings.api != "auto",
        "rename": settings.rename,
        "drop": frozenset(settings.drop_fields),
        "force": settings.set_fields,
        "salts": settings.cache_salt,
    }
    return {
        Api.RESPONSES: ResponsesSpeech(forms=Forms(system=system), **common),
        Api.CHAT: ChatSpeech(chat=chat, **common),
    }


def _better(earlier: UpstreamFailed | None, later: UpstreamFailed) -> UpstreamFailed:
    """Which of two replicas' failures tells more: one that says when to come back, and of two the sooner."""
    if earlier is None or earlier.reason is not Reason.PUT_OFF:
        return later
    if later.reason is not Reason.PUT_OFF:
        return later if later.reason is Reason.REFUSED else earlier
    waits = [failed.retry_after_s for failed in (earlier, later) if failed.retry_after_s is not None]
    return replace(later, retry_after_s=min(waits, default=None))


def _request_id(job_id: str) -> str:
    """A UUID that follows from the job: some servers refuse any other kind of request id with a 400."""
    return str(uuid.UUID(hex=job_id.removeprefix("resp_")[:32], version=4))
