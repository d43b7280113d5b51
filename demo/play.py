"""The demo: a background job that survives its reader, played on a real gateway with the real SDK.

It starts a gateway (and, unless --upstream names a real model server, the simulated one), plays the
scenes, and stays up to be tried by hand. Any promise that does not hold makes it exit with status 1.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

import httpx2
import openai
from openai import OpenAI
from rich.console import Console

from demo import scenes
from demo.model_server import positive
from demo.proof import TapeTransport
from demo.screen import Screen
from demo.stage import Stage, StageError, free_port

HOLD_POLL_S = 0.5


def main() -> int:
    args = _arguments()
    screen = Screen(Console(highlight=False))
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    with tempfile.TemporaryDirectory(prefix="backburner-demo-") as directory, Stage(Path(directory)) as stage:
        try:
            return _play(args, screen, stage)
        except KeyboardInterrupt:
            screen.gap()
            return 130
        except StageError as error:
            screen.failure(str(error))
            return 1
        except (openai.OpenAIError, OSError) as error:
            screen.failure(f"The play broke off: {type(error).__name__}: {error}")
            if (child := stage.fallen()) is not None:
                screen.line(f"The {child.name} has died. The end of its log:")
                screen.line(child.tail(), style="dim")
            return 1
        finally:
            # Clearing up takes 10 s at most; an impatient second Ctrl-C must not leave children behind.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _play(args: argparse.Namespace, screen: Screen, stage: Stage) -> int:
    screen.title("Backburner: background jobs for a model server that has none")
    simulation_url = None
    if args.upstream is None:
        simulation_url = stage.start_model_server(words_per_second=args.words_per_second)
    upstream = args.upstream or f"{simulation_url}/v1"
    port = _port(args.port, (), screen)
    admin_port = _port(args.admin_port, (port,), screen)
    gateway_url = stage.start_gateway(upstream, port=port, admin_port=admin_port)

    screen.fact("model server", upstream + (" (a simulation: no model inside)" if simulation_url else ""))
    screen.fact("gateway", f"{gateway_url}/v1")
    transport = TapeTransport()
    key = os.environ.get("OPENAI_API_KEY", "demo") if args.upstream else "demo"
    with OpenAI(
        base_url=f"{gateway_url}/v1",
        api_key=key,
        max_retries=0,
        http_client=httpx2.Client(transport=transport, timeout=openai.DEFAULT_TIMEOUT),
    ) as client:
        model = args.model or _first_model(client)
        screen.fact("model", model)
        cast = scenes.Cast(
            client, transport, screen, gateway_url, model, simulation_url, args.words_per_second
        )
        job_id, checks = scenes.outlive_the_reader(cast)
        checks += scenes.call_off(cast)
    if failed := [check.name for check in checks if not check.is_ok]:
        screen.failure(f"The demo failed: {', '.join(failed)}.")
        return 1
    screen.gap()
    screen.line("Every check holds.", style="bold green")
    if not args.once:
        shown_key = "demo" if key == "demo" else "$OPENAI_API_KEY"
        _invite(screen, gateway_url, f"http://127.0.0.1:{admin_port}", model, job_id, shown_key)
        _hold(stage)
    return 0


def _first_model(client: OpenAI) -> str:
    models = client.models.list().data
    if not models:
        raise StageError("The model server lists no model; name one with --model.")
    return models[0].id


def _invite(screen: Screen, gateway_url: str, admin_url: str, model: str, job_id: str, key: str) -> None:
    """Say what to try by hand; the id is that of the job just played, so the lines work as they stand.

    The key goes along: a response is there only for the one that created it.
    """
    responses = f"{gateway_url}/v1/responses"
    curl = f'curl -sN -H "Authorization: Bearer {key}"'
    body = f'{{"model": "{model}", "input": "Tell me a long story", "background": true, "stream": true}}'
    screen.gap()
    screen.title("Now it is yours (Ctrl-C ends it)")
    screen.fact("base URL", f"{gateway_url}/v1")
    screen.fact("admin URL", admin_url)
    screen.gap()
    screen.line("Start a job; Ctrl-C leaves the stream, not the job:", style="dim")
    screen.line(f"{curl} {responses} -H 'Content-Type: application/json' -d '{body}'")
    screen.line("Ask how it is going (put your job's id here):", style="dim")
    screen.line(f"{curl} {responses}/{job_id}")
    screen.line("Follow it again, after event 10:", style="dim")
    screen.line(f"{curl} '{responses}/{job_id}?stream=true&starting_after=10'")


def _hold(stage: Stage) -> None:
    """Stay up until Ctrl-C or SIGTERM, which here are the proper ending."""
    try:
        while (child := stage.fallen()) is None:
            time.sleep(HOLD_POLL_S)
    except KeyboardInterrupt:
        return
    raise StageError(f"The {child.name} has died. The end of its log:\n{child.tail()}")


def _port(wanted: int, taken: tuple[int, ...], screen: Screen) -> int:
    port = free_port(wanted, taken=taken)
    if wanted and port != wanted:
        screen.line(f"Port {wanted} is taken; {port} is used instead.", style="dim")
    return port


def _as_ctrl_c(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.play", description=__doc__)
    parser.add_argument("--upstream", metavar="URL", help="a real model server, as http://localhost:8000/v1")
    parser.add_argument("--model", metavar="NAME", help="default: the first the server lists")
    parser.add_argument("--once", action="store_true", help="exit after the play")
    parser.add_argument("--port", type=int, default=9000, help="default: %(default)s")
    parser.add_argument("--admin-port", type=int, default=9001, help="default: %(default)s")
    parser.add_argument(
        "--words-per-second", type=positive, default=8.0, metavar="N", help="of the simulation"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
