"""More than the queue holds."""

from __future__ import annotations

import statistics
import time

from tests.acceptance.harness import KEY
from tests.torture import oracle
from tests.torture.flood import flood, percentile
from tests.torture.journal import Story
from tests.torture.trial import Bench, trial
from tests.torture.trials.kills import note_verdict
from tests.torture.watch import metrics

_POSTS = 20_000
_SECONDS = 5
_DELTAS = 8
_PACE_MS = 500
"""As slow as generation is: what the gateway can run at once is not what is asked here."""
_REFUSED_S = 0.1
_STALL_S = 0.25
_RETRY_AFTER_MAX_S = 120
_LATER_PER_S, _LATERS = 1000, 5
"""What goes on to come for some seconds when the flood is over. As fast as that comes, one core of Python
does not answer, and everybody waits behind everybody."""


@trial(
    "T40",
    f"{_POSTS:,} creates of one caller in {_SECONDS} s, with default limits; then {_LATER_PER_S:,} a second",
    pass_mark=f"beyond the limits 429 with Retry-After of 1 to {_RETRY_AFTER_MAX_S} s; accepted ones all "
    f"complete; loop lag at most {_STALL_S * 1000:g} ms; then p99 of the refusals in a second (median of "
    f"{_LATERS}) at most {_REFUSED_S * 1000:g} ms",
    runs=3,
    round_s=120,
)
async def flood_with_creates(bench: Bench) -> None:
    for _ in bench.rounds():
        model = await bench.model()
        gateway = await bench.gateway(model.url)
        script = {"pace_ms": _PACE_MS}
        answers = await flood(gateway.url, [KEY], posts=_POSTS, seconds=_SECONDS, script=script)
        now = await metrics(gateway)
        later = [
            await flood(
                gateway.url, [KEY], posts=_LATER_PER_S, seconds=1, script=script, tags=f"later.{number}"
            )
            for number in range(_LATERS)
        ]
        refused_s = statistics.median(percentile(each.refused_s, 0.99) for each in later)
        bench.add("refused", len(answers.refused_s))
        bench.most("refused p99 s", percentile(answers.refused_s, 0.99))
        bench.most("refused p99 s, then", refused_s)
        bench.most("accepted p99 s", percentile(answers.accepted_s, 0.99))
        bench.most("loop lag max s", now.loop_lag_s(1.0))
        bench.most("all answered after s", answers.seconds)
        for each in later:
            answers.add(each)
        bench.require(not answers.others, f"other answers: {answers.others}")
        told = answers.retry_after_s
        bench.require(
            all(after is not None and 1 <= after <= _RETRY_AFTER_MAX_S for after in told),
            f"Retry-After of {set(told)}",
        )
        bench.require(answers.refused_s, "nothing was refused: there was no overload")
        bench.require(refused_s <= _REFUSED_S, f"refusals then took up to {refused_s:.3f} s (p99)")
        bench.require(now.loop_lag_s(1.0) <= _STALL_S, f"the loop was {now.loop_lag_s(1.0)} s late")
        stories = [
            Story(response_id, tag, False, _DELTAS, time.monotonic()) for response_id, tag in answers.accepted
        ]
        started = time.monotonic()
        note_verdict(bench, await oracle.audit(gateway, stories))
        bench.most("all ended after s", time.monotonic() - started)
        end = await metrics(gateway)
        done = end.of('backburner_jobs_finished_total{backend="default",code="",outcome="completed"}')
        bench.require(done == len(stories), f"{done:g} of {len(stories)} accepted ones completed")
        run = {call.tag for call in await model.calls()}
        bench.require(run == {story.tag for story in stories}, "others were run than were accepted")
        await gateway.kill9()
