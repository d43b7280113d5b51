"""The proof of the play must notice what it claims to notice."""

from __future__ import annotations

import json

from demo import proof

TERMINAL = "response.completed"


def frame(number: int, kind: str = "response.output_text.delta", **more: str) -> bytes:
    event = {"type": kind, "sequence_number": number, **more}
    return f"event: {kind}\ndata: {json.dumps(event)}\n\n".encode()


EVENTS = [
    frame(0, "response.created"),
    frame(1, delta="one"),
    frame(2, delta=" two"),
    frame(3, TERMINAL),
]
WHOLE = b"".join(EVENTS)


def failed(
    first: list[bytes],
    second: list[bytes],
    *,
    replays: tuple[bytes, bytes] = (WHOLE, WHOLE),
    sdk_numbers: list[int] | None = None,
    status: str = "completed",
    text: str = "one two",
) -> list[str]:
    numbers = [0, 1, 2, 3] if sdk_numbers is None else sdk_numbers
    checks = proof.check(first, second, replays, sdk_numbers=numbers, status=status, output_text=text)
    return [check.name for check in checks if not check.is_ok]


def test_whole_evidence_passes_wherever_it_was_cut() -> None:
    for cut in range(1, len(EVENTS) + 1):
        assert failed(EVENTS[:cut], EVENTS[cut:]) == []


def test_lost_event_is_noticed() -> None:
    assert "gaps" in failed(EVENTS[:2], EVENTS[3:])
    assert "gaps" in failed(EVENTS[:2], EVENTS[2:3])


def test_event_seen_twice_is_noticed() -> None:
    assert "duplicates" in failed(EVENTS[:3], EVENTS[2:])


def test_changed_byte_is_noticed() -> None:
    changed = [frame(2, delta=" too"), EVENTS[3]]
    assert failed(EVENTS[:2], changed) == [
        "two pieces = whole replay, byte for byte",
        "streamed text = stored text",
    ]


def test_replays_that_differ_are_noticed() -> None:
    assert failed(EVENTS[:2], EVENTS[2:], replays=(WHOLE, WHOLE + b"\n")) == [
        "replayed twice, the same bytes"
    ]


def test_wrong_ending_text_status_or_sdk_is_noticed() -> None:
    cut = b"".join(EVENTS[:3])
    assert "one ending" in failed(EVENTS[:2], EVENTS[2:3], replays=(cut, cut), sdk_numbers=[0, 1, 2])
    assert failed(EVENTS[:2], EVENTS[2:], text="one") == ["streamed text = stored text"]
    assert failed(EVENTS[:2], EVENTS[2:], status="in_progress") == ["status when polled"]
    assert failed(EVENTS[:2], EVENTS[2:], sdk_numbers=[0, 1, 3]) == ["the SDK saw the same events"]


def test_empty_evidence_fails_instead_of_crashing() -> None:
    assert failed([], [], replays=(b"", b""), sdk_numbers=[])


def test_frames_leave_out_heartbeats_and_a_torn_end() -> None:
    stream = EVENTS[0] + b": keep-alive\n\n" + EVENTS[1] + EVENTS[2][:20]
    assert proof.frames(stream) == EVENTS[:2]
    assert proof.up_to(WHOLE, 1) == EVENTS[:2]
