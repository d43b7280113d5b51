"""The page `/ui` in a real browser: at three widths, with no jobs, three and two thousand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from tests.acceptance.conftest import StartGateway
from tests.acceptance.fleet import until
from tests.acceptance.harness import Gateway, within
from tests.acceptance.operator import done, get, seen
from tests.acceptance.receivers import Answer as Taking
from tests.acceptance.receivers import Receiver
from tests.acceptance.replay import Answer, ReplayServer, replay
from tests.acceptance.test_admin_api import ADMIN, CONTENT, ONE_SLOT, PROMPT, READ, created, tokens
from tests.acceptance.test_webhooks import told
from tests.support.browser import Tab, browser, chromium

__all__ = ["tokens"]

WIDTHS = (390, 820, 1440)
MANY = 2000
_AT_ONCE = 32

HOSTILE = '<img src=x onerror="document.title=`taken`">'

pytestmark = pytest.mark.skipif(chromium() is None, reason="there is no Chromium (CHROMIUM names one)")


@pytest.fixture
async def tab() -> AsyncIterator[Tab]:
    binary = chromium()
    assert binary is not None
    async with browser(binary) as one:
        yield one
        assert one.complaints == []


async def shown(tab: Tab, gateway: Gateway, query: str = "", *, width: int = 1440) -> None:
    """The page is there, and has looked."""
    await tab.size(width)
    await tab.go(f"{gateway.admin.replace('0.0.0.0', '127.0.0.1')}/ui/{query}")
    await tab.until("document.querySelector('#list').innerText && document.querySelector('#chart').innerText")


async def rows(tab: Tab) -> int:
    found: int = await tab.run("document.querySelectorAll('#list tbody tr').length")
    return found


async def fits(tab: Tab) -> bool:
    found: bool = await tab.run("document.documentElement.scrollWidth <= innerWidth")
    return found


async def confirm(tab: Tab) -> None:
    """Yes to what the dialog asks."""
    await tab.until("document.querySelector('dialog').open")
    await tab.click("dialog button[value=yes]")


async def held_job(gateway: Gateway, server: ReplayServer, hold_after: int = 6) -> tuple[Answer, str]:
    held = server.script(replay("vllm/responses-stream", hold_after=hold_after))
    response_id = await created(gateway)
    await within(held.held.wait())
    return held, response_id


async def test_with_no_jobs_it_says_so_at_every_width(gateway: Gateway, tab: Tab) -> None:
    for width in WIDTHS:
        await shown(tab, gateway, width=width)
        assert "There are no jobs." in await tab.run("document.querySelector('#list').innerText")
        assert await fits(tab), width


async def test_with_three_jobs_each_has_its_row_and_its_panel_at_every_width(
    gateway: Gateway, tab: Tab
) -> None:
    for _ in range(3):
        await gateway.ended(await created(gateway))
    for width in WIDTHS:
        await shown(tab, gateway, width=width)
        assert (await rows(tab), await fits(tab)) == (3, True), width
        assert await tab.run("document.querySelector('[data-state=completed] b').innerText") == "3"
        await tab.click("#list tbody tr:nth-child(2) code")
        await tab.until("document.querySelector('#panel .timeline')")
        assert "it is over, and its result" in await tab.run("document.querySelector('#panel').innerText")
        assert await fits(tab), width


async def test_with_two_thousand_jobs_it_shows_some_and_more_when_asked(
    start_gateway: StartGateway, replay_server: ReplayServer, tab: Tab
) -> None:
    gateway = await start_gateway(**ONE_SLOT, BACKBURNER_BACKGROUND__QUEUE_PER_TENANT_MAX=5000)
    await held_job(gateway, replay_server)
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one() -> None:
        async with limit:
            await created(gateway)

    await asyncio.gather(*(one() for _ in range(MANY)))
    for width in WIDTHS:
        await shown(tab, gateway, "?state=queued", width=width)
        assert (await rows(tab), await fits(tab)) == (50, True), width
        await tab.until("document.querySelector('[data-state=queued] b').innerText === '2,000'")
    await tab.click("[data-act=more]")
    await tab.until("document.querySelectorAll('#list tbody tr').length === 100")
    await tab.click("[data-act=many-matching][data-doing=cancel]")
    await tab.until("document.querySelector('dialog').innerText.includes('Cancel 2,000 jobs?')")
    await tab.press("Escape")
    assert (await seen(gateway, "overview"))["states"]["queued"] == MANY


async def test_filters_hold_together_and_live_in_the_address(
    start_gateway: StartGateway, replay_server: ReplayServer, tab: Tab
) -> None:
    gateway = await start_gateway(**ONE_SLOT)
    await held_job(gateway, replay_server)
    waiting = [await created(gateway, model=model) for model in ("alpha", "beta", "beta")]
    await shown(tab, gateway)
    assert await rows(tab) == 4
    await tab.click("[data-act=state][data-state=queued]")
    await tab.until("document.querySelectorAll('#list tbody tr').length === 3")
    await tab.click("#filters [name=model]")
    await tab.type("beta")
    await tab.until("document.querySelectorAll('#list tbody tr').length === 2")
    address = await tab.run("location.search")
    assert address == "?state=queued&model=beta"
    await shown(tab, gateway, address)
    assert await rows(tab) == 2
    assert await tab.run("document.querySelector('#filters [name=model]').value") == "beta"
    await tab.click("[data-act=open]")
    await tab.until("document.querySelector('#panel .facts')")
    assert await tab.run("new URLSearchParams(location.search).get('job')") in waiting[1:]
    await tab.run("history.back()")
    await tab.until("document.querySelector('#panel').hidden")
    assert await tab.run("location.search") == address
    await tab.click("#filters [name=older]")
    await tab.type("soon")
    await tab.until("document.querySelector('[role=alert]')?.innerText.includes('length of time')")
    tab.complaints.clear()  # the browser's own word about the 400


async def test_the_list_is_sorted_by_a_column_and_the_address_says_so(
    start_gateway: StartGateway, replay_server: ReplayServer, tab: Tab
) -> None:
    gateway = await start_gateway(BACKBURNER_UPSTREAM__CONCURRENCY_MAX=2)
    over = await created(gateway)
    await gateway.ended(over)
    _, more = await held_job(gateway, replay_server, hold_after=11)
    _, less = await held_job(gateway, replay_server, hold_after=6)
    waits = await created(gateway)
    await shown(tab, gateway)
    order = "[...document.querySelectorAll('#list tbody a')].map((each) => each.dataset.id).join()"

    async def is_sorted(*ids: str) -> None:
        await tab.until(f"{order} === '{','.join(ids)}'")

    await is_sorted(waits, less, more, over)
    await tab.click("[data-order=oldest]")
    await is_sorted(over, more, less, waits)
    assert await tab.run("document.querySelector('[aria-sort=descending]').innerText") == "Age ↓"
    await tab.click("[data-order=events]")
    await is_sorted(more, less)
    address = await tab.run("location.search")
    assert address == "?state=in_progress&order=events"
    await shown(tab, gateway, address)
    await is_sorted(more, less)
    await tab.click("[data-order=speed]")
    await tab.until("document.querySelector('[aria-sort=descending]')?.innerText.includes('/s')")
    await tab.click("[data-act=state][data-state=live]")
    await is_sorted(waits, less, more)
    await tab.click("[data-by=Try]")
    await tab.until("location.search.includes('sort=Try')")
    await is_sorted(less, more, waits)


async def test_the_gateway_is_drained_after_a_question(gateway: Gateway, tab: Tab) -> None:
    await shown(tab, gateway)
    await tab.click("[data-act=drain]")
    await confirm(tab)
    assert await gateway.exit_status() == 0
    await tab.until("document.querySelector('#health').innerText.includes('does not answer')")
    tab.complaints.clear()  # the browser's own word about a port that is closed


async def test_it_is_used_by_the_keyboard_alone(gateway: Gateway, tab: Tab) -> None:
    for _ in range(2):
        await gateway.ended(await created(gateway))
    await shown(tab, gateway)
    await tab.press("j")
    await tab.press("j")
    chosen = await tab.run("document.activeElement.dataset.id")
    await tab.press("Enter")
    await tab.until("document.querySelector('#panel .id')")
    assert await tab.run("document.querySelector('#panel .id').innerText") == chosen
    assert await tab.run("document.activeElement.id") == "panel"
    await tab.press("Escape")
    await tab.until("document.querySelector('#panel').hidden")
    assert await tab.run("document.activeElement.dataset.id") == chosen
    await tab.press("/")
    assert await tab.run("document.activeElement.name") == "id"


async def test_a_screen_reader_hears_a_name_for_whatever_can_be_used(
    start_gateway: StartGateway, replay_server: ReplayServer, tab: Tab
) -> None:
    gateway = await start_gateway(**CONTENT)
    _, response_id = await held_job(gateway, replay_server)
    await shown(tab, gateway, f"?job={response_id}")
    await tab.until("document.querySelector('#panel .tabs')")
    tree = await tab.ask("Accessibility.getFullAXTree")
    used = ("button", "link", "checkbox", "combobox", "textbox", "searchbox", "tab", "image")
    nodes = [each for each in tree["nodes"] if each.get("role", {}).get("value") in used]
    nameless = [each for each in nodes if not each.get("name", {}).get("value")]
    assert len(nodes) > 20
    assert [each for each in nameless if not each.get("ignored")] == []


async def test_many_are_cancelled_after_it_was_said_how_many(
    start_gateway: StartGateway, replay_server: ReplayServer, tab: Tab
) -> None:
    gateway = await start_gateway(**ONE_SLOT)
    await held_job(gateway, replay_server)
    for model in ("a", "b", "b"):
        await created(gateway, model=model)
    await shown(tab, gateway, "?model=b")
    await tab.click("[data-act=many-matching][data-doing=cancel]")
    await tab.until("document.querySelector('dialog').innerText.includes('Cancel 2 jobs?')")
    await confirm(tab)
    await tab.until("document.querySelector('#toast').innerText === '2 jobs cancelled.'")
    await tab.until("document.querySelectorAll('#list .s-cancelled').length === 2")
    await shown(tab, gateway)
    await tab.click("#list tbody tr:nth-child(4) input")  # the first that was made: it runs
    await tab.click("[data-act=many-selected][data-doing=cancel]")
    await tab.until("document.querySelector('dialog').innerText.includes('Cancel 1 job?')")
    await confirm(tab)
    await tab.until("document.querySelector('[data-state=cancelled] b').innerText === '3'")
    states = (await seen(gateway, "overview"))["states"]
    assert states["cancelled"] == 3
    assert (await gateway.line(event="operator", doing="cancel many"))["count"] == 2


async def test_many_are_run_again_after_it_was_said_how_many(start_gateway: StartGateway, tab: Tab) -> None:
    gateway = await start_gateway(BACKBURNER_UPSTREAM__API_KEY="sk-of-the-gateway")
    for model in ("a", "b", "b"):
        await gateway.ended(await created(gateway, model=model))
    await shown(tab, gateway)
    of_all = "[data-act=many-matching]:not([data-doing=cancel])"
    assert await tab.run(f"document.querySelector('{of_all}')") is None, "all is never meant"
    await tab.click("#list tbody tr:nth-child(3) input")
    await tab.click("[data-act=many-selected][data-doing=rerun]")
    await tab.until("document.querySelector('dialog').innerText.includes('Run 1 job again?')")
    await confirm(tab)
    await tab.until("document.querySelector('#toast').innerText === '1 job run again.'")
    await shown(tab, gateway, "?model=b")
    await tab.click("[data-act=many-matching][data-doing=rerun]")
    await tab.until("document.querySelector('dialog').innerText.includes('Run 2 jobs again?')")
    await confirm(tab)
    await tab.until("document.querySelectorAll('#list tbody tr').length === 4")
    assert (await gateway.line(event="operator", doing="rerun many", count=2))["role"] == "admin"


async def test_jobs_are_deleted_and_moved_after_it_was_said_how_many(
    start_gateway: StartGateway, replay_server: ReplayServer, tab: Tab
) -> None:
    gateway = await start_gateway(**ONE_SLOT)
    over = [await created(gateway) for _ in range(3)]
    for each in over:
        await gateway.ended(each)
    await held_job(gateway, replay_server)
    waiting = [await created(gateway) for _ in range(2)]
    await shown(tab, gateway, "?state=queued")
    await tab.click("[data-act=many-matching][data-doing=tier]")
    await tab.until("document.querySelector('dialog').innerText.includes('Move to which tier?')")
    await confirm(tab)
    await tab.until("document.querySelector('dialog').innerText.includes('Move 2 jobs?')")
    await confirm(tab)
    await tab.until("document.querySelector('#toast').innerText === '2 jobs moved.'")
    assert {job["tier"] for job in (await seen(gateway, "jobs?state=queued"))["jobs"]} == {"priority"}
    await shown(tab, gateway, f"?job={over[0]}")
    await tab.until("document.querySelector('#panel .facts')")
    await tab.click("#panel [data-act=delete]")
    await confirm(tab)
    await tab.until("document.querySelector('#panel').hidden")
    await shown(tab, gateway, "?model=tiny")
    await tab.click("[data-act=many-matching][data-doing=delete]")
    await tab.until("document.querySelector('dialog').innerText.includes('Delete 2 jobs?')")
    await confirm(tab)
    await tab.until("document.querySelector('#toast').innerText === '2 jobs deleted.'")
    await tab.until("document.querySelectorAll('#list tbody tr').length === 3")
    left = {job["id"] for job in (await seen(gateway, "jobs"))["jobs"]}
    assert left.isdisjoint(over)
    assert left.issuperset(waiting)


async def test_the_panel_says_who_reads_it_and_what_became_of_its_webhooks(
    start_gateway: StartGateway, replay_server: ReplayServer, tab: Tab
) -> None:
    async with Receiver() as receiver:
        receiver.answers += [Taking(503)]
        gateway = await start_gateway(**told("x", receiver), BACKBURNER_WEBHOOKS__RETRY_DELAYS_S="0.2")
        held = replay_server.script(replay("vllm/responses-stream", hold_after=6))
        body = {"model": "tiny", "input": PROMPT, "background": True, "stream": True}
        async with gateway.http.post(f"{gateway.url}/responses", json=body) as stream:
            await within(held.held.wait())
            response_id = (await gateway.line(event="job", to="queued"))["id"]
            await shown(tab, gateway, f"?job={response_id}")
            await tab.until("document.querySelector('#panel').innerText.includes('Who reads it now')")
            held.release.set()
            await within(stream.read())
        await gateway.line(event="webhook", id=response_id, to="delivered")
        await tab.until("document.querySelector('#panel').innerText.includes('Webhooks that were sent')")
        panel = await tab.run("document.querySelector('#panel').innerText")
        assert "HTTP 503" in panel
        assert "HTTP 200" in panel
        await tab.until("document.querySelector('#webhooks').innerText.includes('HTTP 503')")


async def test_a_backend_is_paused_resumed_and_resized(gateway: Gateway, tab: Tab) -> None:
    await shown(tab, gateway)
    await tab.click("[data-act=pause]")
    await confirm(tab)
    await tab.until("document.querySelector('#backends').innerText.includes('An operator has paused')")
    await created(gateway)
    await tab.until("document.querySelector('#list').innerText.includes('waits: paused')")
    await tab.click("[data-act=slots]")
    await tab.run("document.querySelector('dialog [name=slots]').value = 7")
    await confirm(tab)
    await tab.until("document.querySelector('#backends').innerText.includes('of 7')")
    await tab.click("[data-act=resume]")
    await tab.until("document.querySelector('[data-state=completed] b').innerText === '1'")


async def test_the_text_of_a_job_grows_while_it_is_looked_at(
    start_gateway: StartGateway, replay_server: ReplayServer, tab: Tab
) -> None:
    gateway = await start_gateway(**CONTENT)
    held, response_id = await held_job(gateway, replay_server, hold_after=12)
    await shown(tab, gateway, f"?job={response_id}")
    await tab.until("document.querySelector('#content .said')?.innerText.length > 0")
    so_far = await tab.run("document.querySelector('#content').innerText")
    held.release.set()
    await gateway.ended(response_id)
    await tab.until(f"document.querySelector('#content').innerText.length > {len(so_far)}")
    await tab.click("[data-tab=events]")
    count = (await seen(gateway, f"jobs/{response_id}"))["event_count"]
    await tab.until(f"document.querySelectorAll('#content .events li').length === {count}")
    await tab.click("[data-tab=request]")
    await tab.until(f"document.querySelector('#content').innerText.includes({PROMPT!r})")
    await tab.press("ArrowRight")
    await tab.until("document.activeElement.id === 'tab-result' && document.querySelector('#content .j')")


async def test_prompts_and_answers_are_not_there_unless_the_settings_say_so(
    gateway: Gateway, tab: Tab
) -> None:
    response_id = await created(gateway)
    final = await gateway.ended(response_id)
    await shown(tab, gateway, f"?job={response_id}")
    await tab.until("document.querySelector('#panel .note')")
    page = await tab.run("document.documentElement.outerHTML")
    assert PROMPT not in page
    assert final["output"][-1]["content"][0]["text"] not in page
    assert await tab.run("document.querySelector('#panel .tabs')") is None


async def test_text_of_strangers_is_text(start_gateway: StartGateway, tab: Tab) -> None:
    gateway = await start_gateway(**CONTENT)
    response_id = await created(gateway, model=HOSTILE, input=HOSTILE)
    await gateway.log_of_end(response_id)
    await shown(tab, gateway, f"?job={response_id}&model={HOSTILE.replace(' ', '+')}")
    await tab.click("[data-tab=request]")
    await tab.until("document.querySelector('#content').innerText.includes('onerror')")
    assert await tab.run("document.querySelectorAll('img').length") == 1  # its own
    assert await tab.run("document.title") != "taken"


async def test_a_name_cannot_turn_the_direction_of_writing_or_hide_a_sign(
    start_gateway: StartGateway, tab: Tab
) -> None:
    gateway = await start_gateway(**CONTENT)
    model = "tiny\u202egpj.exe\u2066\u200b"
    response_id = await created(gateway, model=model, input=model)
    await gateway.log_of_end(response_id)
    await shown(tab, gateway, f"?job={response_id}")
    await tab.click("[data-tab=request]")
    await tab.until("document.querySelector('#content').innerText.includes('gpj')")
    shown_as = "tiny⟨U+202E⟩gpj.exe⟨U+2066⟩⟨U+200B⟩"
    for place in ("#list", "#panel .facts", "#content"):
        assert shown_as in await tab.run(f"document.querySelector('{place}').innerText"), place
    assert await tab.run("document.querySelector('td.cut').title") == shown_as
    unseen = r"/[\u202a-\u202e\u2066-\u2069\u200b]/.test(document.body.innerText)"
    assert not await tab.run(unseen)


async def test_numbers_are_exact_and_what_is_copied_is_what_was_sent_on_plain_http_too(
    start_gateway: StartGateway, tab: Tab
) -> None:
    gateway = await start_gateway(**CONTENT)
    large = 2**63 + 1
    response_id = await created(gateway, metadata={"a": "b"}, seed=large)
    await gateway.log_of_end(response_id)
    await shown(tab, gateway, f"?job={response_id}")
    await tab.click("[data-tab=request]")
    await tab.until("document.querySelector('#content .j')")
    assert str(large) in await tab.run("document.querySelector('#content').innerText")
    await tab.run("Object.defineProperty(navigator, 'clipboard', { value: undefined }), undefined")
    kept = "window.copied = document.activeElement.value;"
    await tab.run(f"document.addEventListener('copy', () => {{ {kept} }}), undefined")
    await tab.click("#content button")
    await tab.until("document.querySelector('#toast').innerText === 'Copied.'")
    sent = await get(gateway, f"jobs/{response_id}/request")
    assert await tab.run("window.copied") == sent.body.decode()
    await tab.click("[data-tab=events]")
    await tab.until("document.querySelector('#content li')?.innerText.includes('\"sequence_number\":0')")
    assert await tab.run("document.querySelector('#content ol').start") == 0


async def test_a_token_is_asked_for_and_the_reader_has_no_buttons(
    start_gateway: StartGateway, tokens: dict[str, object], tab: Tab
) -> None:
    gateway = await start_gateway(**tokens)
    await gateway.ended(await created(gateway))
    await tab.size(1440)
    for token, has_buttons in ((READ, False), (ADMIN, True)):
        await tab.go(f"{gateway.admin}/ui/")
        await tab.until("document.querySelector('dialog [name=token]')")
        await tab.type(token)
        await confirm(tab)
        await tab.until("document.querySelectorAll('#list tbody tr').length === 1")
        assert await tab.run("Boolean(document.querySelector('[data-act=pause]'))") is has_buttons
        assert (
            await tab.run("Boolean(document.querySelector('[data-act=many-matching][data-doing=cancel]'))")
            is has_buttons
        )
        await tab.run("sessionStorage.clear()")
    assert all("401" in complaint for complaint in tab.complaints)
    tab.complaints.clear()


async def test_it_works_under_a_path_of_a_proxy(gateway: Gateway, tab: Tab) -> None:
    await gateway.ended(await created(gateway))
    async with _proxied(gateway.admin) as root:
        await tab.size(1440)
        await tab.go(f"{root}/ops/backburner/ui")
        await tab.until("document.querySelectorAll('#list tbody tr').length === 1")
        await tab.click("[data-act=pause]")
        await confirm(tab)
        await tab.until("document.querySelector('[data-act=resume]')")
        assert (await seen(gateway, "overview"))["backends"][0]["paused"]
        asked = {url.removeprefix(root) for url in tab.requests if url.startswith(root)}
        assert {url for url in asked if not url.startswith("/ops/backburner/")} == set()
    elsewhere = [url for url in tab.requests if not url.startswith((root, "data:", "about:"))]
    assert elsewhere == [], "nothing comes from anywhere else"


@asynccontextmanager
async def _proxied(admin: str) -> AsyncIterator[str]:
    """A proxy that has the admin port under `/ops/backburner`."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def handle(request: web.Request) -> web.Response:
            path = request.path_qs.removeprefix("/ops/backburner")
            headers = {name: value for name, value in request.headers.items() if name not in ("Host",)}
            async with session.request(
                request.method,
                f"{admin}{path}",
                headers=headers,
                data=await request.read(),
                allow_redirects=False,
            ) as answer:
                return web.Response(
                    status=answer.status,
                    body=await answer.read(),
                    headers={k: v for k, v in answer.headers.items() if k not in ("Content-Length", "Date")},
                )

        app = web.Application()
        app.router.add_route("*", "/ops/backburner/{path:.*}", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        try:
            yield f"http://{host}:{port}"
        finally:
            await runner.cleanup()


async def test_it_is_dark_where_the_system_is_and_as_it_is_told(gateway: Gateway, tab: Tab) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    await shown(tab, gateway)
    light = await tab.run(background)
    await tab.size(1440, is_dark=True)
    dark = await tab.run(background)
    assert light != dark
    await tab.run(
        "(() => { const t = document.querySelector('#theme'); t.value = 'light';"
        " t.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )
    assert await tab.run(background) == light


async def test_a_page_that_is_hidden_or_paused_asks_for_nothing(gateway: Gateway, tab: Tab) -> None:
    await shown(tab, gateway)
    await tab.until("document.querySelectorAll('#refresh option').length")

    async def asked_in_a_minute() -> int:
        before = len(tab.requests)
        await tab.pass_time(60_000)
        return len(tab.requests) - before

    await tab.run("Object.defineProperty(document, 'hidden', {value: true, configurable: true}), true")
    assert await asked_in_a_minute() <= 3, "those that were under way"
    assert await asked_in_a_minute() == 0
    await tab.run(
        "Object.defineProperty(document, 'hidden', {value: false, configurable: true}),"
        " document.dispatchEvent(new Event('visibilitychange')), true"
    )
    await until(lambda: _more_than(tab, len(tab.requests)))


async def _more_than(tab: Tab, count: int) -> bool:
    await tab.pass_time(3_000)
    return len(tab.requests) > count


async def test_the_files_may_be_cached_and_nothing_else_may_run_in_the_page(gateway: Gateway) -> None:
    async with gateway.http.get(f"{gateway.admin}/ui/app.js") as answer:
        tag = answer.headers["ETag"]
        assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
    async with gateway.http.get(f"{gateway.admin}/ui/app.js", headers={"If-None-Match": tag}) as answer:
        assert answer.status == 304
    for path in ("/ui/nothing.js", "/ui/../v1.py", "/ui/%2e%2e/v1.py"):
        async with gateway.http.get(f"{gateway.admin}{path}") as answer:
            assert answer.status == 404, path


async def test_the_page_can_be_turned_off_and_the_api_stays(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(BACKBURNER_UI__PAGE="false")
    async with gateway.http.get(f"{gateway.admin}/ui/") as answer:
        assert answer.status == 404
    assert (await get(gateway, "overview")).status == 200
    await done(gateway, "backends/default/pause")
