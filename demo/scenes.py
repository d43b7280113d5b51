"""What is played: one job that outlives its reader, and one that is called off.

All of it goes through the unmodified `openai` SDK, as a user's program would. Each scene shows what
happens and returns what it proved.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import openai
from openai import OpenAI, Stream
from openai.types.responses import ResponseStreamEvent

from demo import proof
from demo.proof import Check, TapeTransport
from demo.screen import Screen

PROMPT = "Tell me a short story about an absent-minded lighthouse keeper."
PROMPT_TO_A_REAL_MODEL = "Tell me a long story about an absent-minded lighthouse keeper."
"""Real servers are fast: a short story would be over before the connection can drop."""
LONG_PROMPT = "Tell me a long story about a ship that never arrives."
DROP_AFTER_WORDS = 20
"""About a third of the simulated model's short story."""
PRETEND_EVENTS = 5
"""Of a stream that was over before we could drop it, we act as if we had seen only these."""
AWAY_S = 1.5
POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays: the SDK's client (with a tape under it), the gateway, and the simulation if there is one."""

    client: OpenAI
    transport: TapeTransport
    screen: Screen
    gateway_url: str
    model: str
    simulation_url: str | None
    words_per_second: float

    @property
    def prompt(self) -> str:
        return PROMPT if self.simulation_url else PROMPT_TO_A_REAL_MODEL


def outlive_the_reader(cast: Cast) -> tuple[str, list[Check]]:
    """Start a job, lose the connection, come back, and prove that nothing was lost; also returns its id."""
    screen = cast.screen
    screen.step("Submit a background job", "client.responses.create(…, background=True, stream=True)")
    screen.fact("prompt", cast.prompt)
    stream = cast.client.responses.create(model=cast.model, input=cast.prompt, background=True, stream=True)
    numbers: list[int] = []
    job_id = _read_until_drop(stream, numbers, screen)
    stream.close()
    first_bytes = bytes(cast.transport.tape)
    _say_where_we_left(screen, numbers)
    cursor = numbers[-1]

    screen.step("Meanwhile nobody is listening", "client.responses.retrieve(id)")
    _stay_away(cast, job_id)

    screen.step(
        f"Come back for everything after event {cursor}",
        f"client.responses.retrieve(id, stream=True, starting_after={cursor})",
    )
    resumed = cast.client.responses.retrieve(job_id, stream=True, starting_after=cursor)
    for event in resumed:
        numbers.append(event.sequence_number)
        if event.type == "response.output_text.delta":
            screen.words(event.delta)
    second_bytes = bytes(cast.transport.tape)

    screen.step("Ask for the finished object", "client.responses.retrieve(id)")
    final = cast.client.responses.retrieve(job_id)
    screen.fact("status", str(final.status))
    if final.usage is not None:
        screen.fact("usage", f"{final.usage.input_tokens} tokens in, {final.usage.output_tokens} out")

    screen.step(
        "Prove it: replay the whole stream, twice, as raw bytes", "GET /v1/responses/{id}?stream=true"
    )
    replay_url = f"{cast.gateway_url}/v1/responses/{job_id}?stream=true"
    key = cast.client.api_key
    checks = proof.check(
        proof.up_to(first_bytes, cursor),
        proof.frames(second_bytes),
        (proof.fetch(replay_url, key), proof.fetch(replay_url, key)),
        sdk_numbers=numbers,
        status=final.status,
        output_text=final.output_text,
    )
    screen.checks(checks)
    return job_id, checks


def call_off(cast: Cast) -> list[Check]:
    """Start a long job and cancel it: it stops at once, and what it had written is kept."""
    screen = cast.screen
    screen.step("Start a long job, then cancel it", "client.responses.cancel(id)")
    job = cast.client.responses.create(model=cast.model, input=LONG_PROMPT, background=True)
    screen.fact("id", job.id)
    screen.fact("status", str(job.status))
    # At whatever pace: late enough for a few words to be there, early enough not to meet the end.
    time.sleep(min(max(1.0, 4 / cast.words_per_second), 100 / cast.words_per_second))
    try:
        cancelled = cast.client.responses.cancel(job.id)
    except openai.BadRequestError as error:
        if cast.simulation_url is not None:
            raise
        screen.line(f"This server was too fast to be cancelled: {error.message}", style="dim")
        return []
    kept = len(cancelled.output_text.split())
    checks = [Check("status after cancel", str(cancelled.status), cancelled.status == "cancelled")]
    if cast.simulation_url is not None:
        running = _wait_until_idle(cast.simulation_url)
        checks.append(Check("words kept", str(kept), kept > 0))
        checks.append(Check("requests left running on the model server", str(running), running == 0))
    else:
        screen.fact("words kept", str(kept))
    screen.checks(checks)
    return checks


def _read_until_drop(stream: Stream[ResponseStreamEvent], numbers: list[int], screen: Screen) -> str:
    """Show the first part of a stream and note its numbers; returns the job's id."""
    job_id, words = "", 0
    for event in stream:
        numbers.append(event.sequence_number)
        if event.type == "response.created":
            job_id = event.response.id
            screen.fact("id", job_id)
            screen.fact("status", str(event.response.status))
            screen.step("Follow it live")
        elif event.type.endswith(".delta"):
            words += 1
            if event.type == "response.output_text.delta":
                screen.words(event.delta)
        if words == DROP_AFTER_WORDS:
            break
        if event.type in ("response.completed", "response.incomplete", "response.failed"):
            screen.line(
                "(The job is over already; we act as if we had seen only its first events.)", style="dim"
            )
            del numbers[PRETEND_EVENTS:]
    return job_id


def _say_where_we_left(screen: Screen, numbers: list[int]) -> None:
    screen.step("The connection drops (we closed it on purpose)")
    screen.fact("last event", f"sequence_number {numbers[-1]}: all that has to be remembered")


def _stay_away(cast: Cast, job_id: str) -> None:
    before = gauge(cast.simulation_url, "demo:tokens_generated_total")
    deadline = time.monotonic() + AWAY_S
    while True:
        cast.screen.fact("status", str(cast.client.responses.retrieve(job_id).status))
        if time.monotonic() >= deadline:
            break
        time.sleep(POLL_S)
    after = gauge(cast.simulation_url, "demo:tokens_generated_total")
    if before is not None and after is not None and after > before:
        cast.screen.fact("meanwhile", f"the model wrote {after - before} more words")


def _wait_until_idle(simulation_url: str) -> int | None:
    """The number of requests the model server works on, once it is 0 or after 5 s."""
    deadline = time.monotonic() + 5
    while (running := gauge(simulation_url, "demo:num_requests_running")) and time.monotonic() < deadline:
        time.sleep(0.05)
    return running


def gauge(simulation_url: str | None, name: str) -> int | None:
    """Read a number of the simulated model server; a real server has none of these."""
    if simulation_url is None:
        return None
    with proof.DIRECT.open(f"{simulation_url}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), None)
