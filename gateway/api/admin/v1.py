"""The admin API: `/api/v1/…` on the admin port, JSON. The page and the command line live on it.

What looks changes nothing and is a GET; what changes is a POST, wants the role `admin`, and leaves one line
in the log: who, what, and to how many.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from gateway import __version__
from gateway.api.admin import views
from gateway.api.admin.changes import Changes, Done, no_such_page
from gateway.api.admin.filters import wanted, whole
from gateway.api.admin.roles import Access, Role
from gateway.api.admin.webhooks import ReceiverRoutes
from gateway.api.http.bodies import read_body
from gateway.api.http.errors import error_response
from gateway.api.http.event_streams import stream_events
from gateway.api.http.ids import new_request_id
from gateway.config import UiSettings
from gateway.core.job import Status, StoreUnavailable
from gateway.engine.operators import Operators
from gateway.engine.overviews import Overviews
from gateway.engine.receivers import WebhookReceivers as Outgoing
from gateway.engine.refusals import refusal_of
from gateway.observe import Observer, line
from gateway.observe.history import STEP_MS, JobKind
from gateway.wire.errors import Fault, Refusal, invalid, not_found
from gateway.wire.http.headers import set_own

PREFIX = "/api/v1/"

_BODY_BYTES_MAX = 2**20
_LIST_MAX, _LIST_DEFAULT = 200, 50
_HEARTBEAT_S = 10.0
_CHARTS = ("created", "finished", "waiting", "running", "wait")
_GROUPS = ("outcome", "backend", "model", "tenant")

_NO_CONTENT = "Requests, results and events are not shown here; ui.content: true shows them."

Answer = web.StreamResponse


class AdminApi:
    """The handler of everything under `PREFIX`.

    Args:
        stall_timeout_s: A reader that takes nothing for so long is cut off.
    """

    def __init__(
        self,
        overviews: Overviews,
        operators: Operators,
        changes: Changes,
        receivers: ReceiverRoutes,
        outgoing: Outgoing,
        access: Access,
        settings: UiSettings,
        observer: Observer,
        now_ms: Callable[[], int],
        *,
        stall_timeout_s: float,
    ) -> None:
        self._overviews = overviews
        self._operators = operators
        self._changes = changes
        self._receivers = receivers
        self._outgoing = outgoing
        self._access = access
        self._settings = settings
        self._observer = observer
        self._now_ms = now_ms
        self._stall_timeout_s = stall_timeout_s
        self._streams = 0

    async def handle(self, request: web.BaseRequest) -> Answer:
        """One request."""
        request_id = new_request_id()
        try:
            answer = await self._answer(request, request_id)
        except StoreUnavailable as error:
            answer = error_response(refusal_of(error, None))
        except Refusal as refusal:
            answer = error_response(refusal)
        except Exception:  # a defect costs its own request only
            line("defect", level=logging.ERROR, request=request_id, exc_info=True)
            answer = error_response(Refusal(Fault.INTERNAL, "The gateway failed.", code="internal_error"))
        if not answer.prepared:
            set_own(answer.headers, request_id)
        return answer

    async def _answer(self, request: web.BaseRequest, request_id: str) -> Answer:
        parts = request.path.removeprefix(PREFIX).split("/")
        if request.method in ("GET", "HEAD"):
            role = self._access.admit(request)
            return await self._look(request, parts, role, request_id)
        if request.method == "POST":
            role = self._access.admit_action(request)
            return await self._act(request, parts, role, request_id)
        raise Refusal(Fault.METHOD, "only GET and POST")

    # -- looking

    async def _look(self, request: web.BaseRequest, parts: list[str], role: Role, request_id: str) -> Answer:
        query = request.query
        match parts:
            case ["overview"]:
                return _json({**await self._overview(role)})
            case ["history"]:
                return _json(self._history(dict(query)))
            case ["webhooks"]:
                return _json(await self._receivers.show())
            case ["jobs"]:
                return _json(await self._jobs(dict(query)))
            case ["jobs", response_id]:
                return _json(await self._job(response_id, role))
            case ["jobs", response_id, "request" | "result" as what]:
                return await self._content(response_id, what)
            case ["jobs", response_id, "events"]:
                after = whole("after", query["after"], 0, 10**9) if "after" in query else -1
                return await self._events(request, response_id, after, request_id)
        raise no_such_page()

    async def _overview(self, role: Role) -> dict[str, Any]:
        found = views.overview(await self._overviews.now(), shows_addresses=role is Role.ADMIN)
        running = self._observer.history.series("running", "backend")
        waiting = self._observer.history.series("waiting", "backend")
        sparks = {
            backend["name"]: {
                "running": _last(running, backend["name"]),
                "waiting": _last(waiting, backend["name"]),
            }
            for backend in found["backends"]
        }
        for backend in found["backends"]:
            backend["spark"] = sparks[backend["name"]]
        return {
            "version": __version__,
            "role": role.word,
            "content": self._settings.content,
            "refresh_s": self._settings.refresh_s,
            "spark_step_s": STEP_MS / 1000,
            **found,
        }

    def _history(self, query: dict[str, str]) -> dict[str, Any]:
        what, by = query.pop("what", "created"), query.pop("by", None)
        if what not in _CHARTS:
            raise invalid(f"what must be one of {', '.join(_CHARTS)}.", param="what")
        if by is not None and by not in _GROUPS:
            raise invalid(f"by must be one of {', '.join(_GROUPS)}.", param="by")
        only = wanted(query, self._now_ms())

        def passes(kind: JobKind) -> bool:
            return (
                (only.backend is None or kind.backend == only.backend)
                and (only.model is None or kind.model == only.model)
                and (only.tenant is None or kind.tenant.startswith(only.tenant[:8]))
            )

        history = self._observer.history
        series = [each._asdict() for each in history.series(what, by, passes)]
        return {"what": what, "by": by, "step_s": STEP_MS / 1000, "end_ms": history.end_ms, "series": series}

    async def _jobs(self, query: dict[str, str]) -> dict[str, Any]:
        limit = whole("limit", query.pop("limit", str(_LIST_DEFAULT)), 1, _LIST_MAX)
        order, cursor = query.pop("order", "newest"), query.pop("cursor", None)
        now_ms = self._now_ms()
        chosen = wanted(query, now_ms)
        before = whole("cursor", cursor, 0, 2**62) if cursor is not None else None
        match order:
            case "newest" | "oldest":
                rows, before = await self._operators.jobs(
                    chosen, limit=limit, before=before, is_oldest_first=order == "oldest"
                )
            case "events" | "speed":
                if chosen.statuses not in (None, {Status.IN_PROGRESS}):
                    message = "By events and speed only those in progress are sorted: state=in_progress."
                    raise invalid(message, param="state")
                rows, before = await self._operators.ranked(chosen, limit=limit, skip=before or 0, by=order)
            case _:
                raise invalid("order must be newest, oldest, events or speed.", param="order")
        following = None if before is None else str(before)
        return {"now_ms": now_ms, "jobs": [views.row(each) for each in rows], "next": following}

    async def _job(self, response_id: str, role: Role) -> dict[str, Any]:
        found = await self._operators.job(response_id)
        if found is None:
            raise not_found(response_id)
        deliveries = await self._outgoing.about(response_id)
        return views.job(found, deliveries, self._now_ms(), shows_addresses=role is Role.ADMIN)

    # -- content

    async def _content(self, response_id: str, what: str) -> Answer:
        """The request without its headers, or the result; as bytes, so that no number is rounded."""
        self._check_content()
        found = await self._operators.job(response_id)
        call = await self._operators.request_of(response_id)
        if found is None or call is None:
            raise not_found(response_id)
        if what == "request":
            body = b'{"request":%b,"input":%b}' % (call.request, call.input)
            return web.Response(body=body, content_type="application/json")
        job = await self._operators.content_of(found.details)
        if job is None or job.final is None:
            raise Refusal(Fault.NOT_FOUND, "There is no result yet.", code="not_over")
        return web.Response(body=job.final, content_type="application/json")

    async def _events(
        self, request: web.BaseRequest, response_id: str, after: int, request_id: str
    ) -> Answer:
        self._check_content()
        found = await self._operators.job(response_id)
        if found is None:
            raise not_found(response_id)
        if self._streams >= self._settings.streams_max:
            message = "Too many open streams; close one (ui.streams_max)."
            raise Refusal(Fault.OVERLOADED, message, code="too_many_streams", retry_after_s=5)
        self._streams += 1
        try:
            return await stream_events(
                request,
                _until_the_store_fails(self._operators.events(found.details, after=after)),
                request_id=request_id,
                stall_timeout_s=self._stall_timeout_s,
                heartbeat_s=_HEARTBEAT_S,
            )
        finally:
            self._streams -= 1

    def _check_content(self) -> None:
        if not self._settings.content:
            raise Refusal(Fault.FORBIDDEN, _NO_CONTENT, code="content_hidden")

    # -- doing

    async def _act(self, request: web.BaseRequest, parts: list[str], role: Role, request_id: str) -> Answer:
        act = self._changes.of(parts, await _body(request), request_id, request.remote)
        # Shielded: whoever hangs up leaves nothing half done, or unsaid.
        return _json(await asyncio.shield(self._done(act, role, request.remote)))

    async def _done(self, act: Callable[[], Awaitable[Done]], role: Role, peer: str | None) -> dict[str, Any]:
        result, audit = await act()
        self._overviews.forget()
        if audit is not None:
            self._observer.operator_acted(role=role.word, peer=peer, **audit)
        if isinstance(result, Refusal):
            raise result
        return result


async def _until_the_store_fails(blocks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    try:
        async for block in blocks:
            yield block
    except StoreUnavailable:
        return  # the reader comes back with its cursor


async def _body(request: web.BaseRequest) -> dict[str, Any]:
    """The JSON object of a change; an empty body is an empty one. Raises: Refusal."""
    if request.content_type != "application/json":
        raise Refusal(Fault.UNSUPPORTED_CODING, "only application/json")
    try:
        said = orjson.loads(await read_body(request, _BODY_BYTES_MAX) or b"{}")
    except orjson.JSONDecodeError:
        said = None
    if not isinstance(said, dict):
        raise invalid("The body must be a JSON object.", code="invalid_json")
    return said


def _last(series: list[Any], name: str) -> list[float | None]:
    """The last five minutes of a line."""
    return next((each.points[-30:] for each in series if each.name == name), [])


def _json(body: Any) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")
