"""What backends of both kinds say of tokens, wherever and under whatever names: never a false zero."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire import responses
from gateway.wire.usage import merged, usage_in, usage_of, zeros
from tests.core.conftest import Played
from tests.wire.chat_play import chunk, run, stream, validate


def counts(usage: dict[str, Any] | None) -> tuple[int, ...]:
    """Input, cached, written to the cache, output, reasoning, total."""
    assert usage is not None
    of_input, of_output = usage["input_tokens_details"], usage["output_tokens_details"]
    return (
        usage["input_tokens"],
        of_input["cached_tokens"],
        of_input["cache_write_tokens"],
        usage["output_tokens"],
        of_output["reasoning_tokens"],
        usage["total_tokens"],
    )


@pytest.mark.parametrize(
    ("given_usage", "expected"),
    [
        # chat completions, with the details that vendors have
        ({"prompt_tokens": 20, "completion_tokens": 9}, (20, 0, 0, 9, 0, 29)),
        (
            {
                "prompt_tokens": 20,
                "completion_tokens": 9,
                "prompt_tokens_details": {"cached_tokens": 16},
                "completion_tokens_details": {"reasoning_tokens": 8},
            },
            (20, 16, 0, 9, 8, 29),
        ),
        ({"prompt_tokens": 20, "completion_tokens": 9, "prompt_cache_hit_tokens": 16}, (20, 16, 0, 9, 0, 29)),
        ({"prompt_tokens": 20, "completion_tokens": 9, "cached_tokens": 16}, (20, 16, 0, 9, 0, 29)),
        (
            {
                "prompt_tokens": 20,
                "completion_tokens": 9,
                "cache_read_input_tokens": 16,
                "cache_creation_input_tokens": 3,
                "prompt_tokens_details": {"cached_tokens": 0, "cache_creation_tokens": 3},
            },
            (20, 16, 3, 9, 0, 29),
        ),
        ({"prompt_tokens": 20, "completion_tokens": 9, "reasoning_tokens": 8}, (20, 0, 0, 9, 8, 29)),
        # the Responses API, and what others call it
        ({"input_tokens": 50, "output_tokens": 4, "total_tokens": 54}, (50, 0, 0, 4, 0, 54)),
        (
            {
                "input_tokens": 50,
                "output_tokens": 4,
                "input_tokens_details": {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 48},
            },
            (50, 48, 0, 4, 0, 54),
        ),
        (
            {
                "promptTokenCount": 10,
                "candidatesTokenCount": 5,
                "thoughtsTokenCount": 20,
                "cachedContentTokenCount": 4,
                "totalTokenCount": 35,
            },
            (10, 4, 0, 5, 20, 35),
        ),
        ({"inputTokens": 7, "outputTokens": 3, "cacheReadInputTokens": 2}, (7, 2, 0, 3, 0, 10)),
        ({"prompt_eval_count": 7, "eval_count": 3}, (7, 0, 0, 3, 0, 10)),
        ({"prompt_n": 1, "cache_n": 19, "predicted_n": 5}, (20, 19, 0, 5, 0, 25)),
        ({"tokens": {"input_tokens": 7, "output_tokens": 3}}, (7, 0, 0, 3, 0, 10)),
        # other types
        ({"prompt_tokens": 7.0, "completion_tokens": "3", "total_tokens": "10.0"}, (7, 0, 0, 3, 0, 10)),
        # a zero, or nothing, beside a number
        ({"prompt_tokens": 7, "input_tokens": 0, "completion_tokens": 3}, (7, 0, 0, 3, 0, 10)),
        ({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 0}, (7, 0, 0, 3, 0, 10)),
        ({"prompt_tokens": 7, "completion_tokens": None, "total_tokens": 10}, (7, 0, 0, 3, 0, 10)),
        ({"completion_tokens": 3, "total_tokens": 10}, (7, 0, 0, 3, 0, 10)),
        ({"total_tokens": 10}, (0, 0, 0, 0, 0, 10)),
    ],
    ids=lambda value: str(value)[:70] if isinstance(value, dict) else "",
)
def test_every_name_in_use_is_its_count(given_usage: dict[str, Any], expected: tuple[int, ...]) -> None:
    assert counts(usage_of(given_usage)) == expected


@pytest.mark.parametrize(
    "value",
    [None, [], "7", {}, {"prompt_tokens": None}, {"prompt_tokens_details": None}, {"input_tokens": "x"}],
)
def test_what_says_nothing_is_no_usage(value: Any) -> None:
    assert usage_of(value) is None


@pytest.mark.parametrize("value", [-1, True, "-3", "1e9", "9" * 400, 2**60, 1e300, [3], {"n": 3}])
def test_what_is_no_number_of_tokens_is_none(value: Any) -> None:
    assert usage_of({"prompt_tokens": value, "completion_tokens": 2}) == usage_of({"completion_tokens": 2})


def test_what_has_no_name_here_goes_along_as_it_came() -> None:
    given_usage = {
        "prompt_tokens": 3,
        "cost": 0.1,
        "cost_details": {"upstream": 0.1},
        "num_search_queries": None,
        "completion_tokens_details": {"audio_tokens": 2, "reasoning_tokens": None},
    }
    shown = usage_of(given_usage)
    assert shown is not None
    assert (shown["cost"], shown["cost_details"]) == (0.1, {"upstream": 0.1})
    assert shown["output_tokens_details"] == {"reasoning_tokens": 0, "audio_tokens": 2}
    assert not {"prompt_tokens", "num_search_queries"} & shown.keys()


def test_what_cannot_be_written_again_is_left_out() -> None:
    deep: Any = {}
    for _ in range(500):
        deep = {"a": deep}
    assert usage_of({"prompt_tokens": 3, "cost": deep}) == usage_of({"prompt_tokens": 3})


def test_zeros_have_every_key() -> None:
    assert counts(zeros()) == (0, 0, 0, 0, 0, 0)


# -- in a stream


def ended(*chunks: dict[str, Any]) -> Played:
    played = run(stream([chunk({"content": "A"}, usage=None), *chunks, chunk(finish="stop")]))
    validate(played)
    return played


USED = {"prompt_tokens": 7, "completion_tokens": 3}


@pytest.mark.parametrize(
    "sent",
    [
        {"choices": [], "usage": USED},
        {"usage": USED},
        chunk(usage=USED),
        chunk(choice={"usage": USED}),
        chunk({"usage": USED}),
        chunk(choice={"message": {"usage": USED}}),
        chunk(x_groq={"id": "r", "usage": USED}),
        chunk(usage_metadata={"prompt_token_count": 7, "candidates_token_count": 3}),
        chunk(usageMetadata={"promptTokenCount": 7, "candidatesTokenCount": 3}),
        chunk(timings={"prompt_n": 5, "cache_n": 2, "predicted_n": 3, "predicted_ms": 12.5}),
        {"message": {"content": ""}, "done": True, "prompt_eval_count": 7, "eval_count": 3},
        {"choices": [], "amazon-bedrock-invocationMetrics": {"inputTokenCount": 7, "outputTokenCount": 3}},
    ],
    ids=lambda sent: str(sent)[-60:],
)
def test_usage_is_found_wherever_it_stands(sent: dict[str, Any]) -> None:
    usage = ended(sent).final["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (7, 3, 10)
    assert "predicted_ms" not in usage


@pytest.mark.parametrize(
    "reports",
    [
        [{"prompt_tokens": 7, "completion_tokens": 1}, USED],
        [USED, {"prompt_tokens": 0, "completion_tokens": 3}],
        [USED, {"prompt_tokens": None, "completion_tokens": None, "total_tokens": 0}],
        [{"prompt_tokens": 7, "completion_tokens": 0}, {"completion_tokens": 3}],
        [{"completion_tokens": 3}, {"prompt_tokens": 7}],
        [USED, {}],
    ],
    ids=["growing", "a zero later", "nulls later", "in two parts", "the other way", "nothing later"],
)
def test_of_several_reports_each_number_is_the_largest(reports: list[dict[str, Any]]) -> None:
    usage = ended(*(chunk(usage=report) for report in reports)).final["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (7, 3, 10)


def test_details_of_several_reports_are_put_together() -> None:
    first = {"prompt_tokens_details": {"cached_tokens": 5}, "cost": 1}
    later = {"prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 2}, "cost": 2}
    assert merged(first, later) == {
        "prompt_tokens_details": {"cached_tokens": 5, "audio_tokens": 2},
        "cost": 2,
    }


def test_timings_beside_a_usage_take_nothing_from_it() -> None:
    usage = ended(chunk(usage=USED, timings={"prompt_n": 1, "cache_n": 6, "predicted_n": 3})).final["usage"]
    assert counts(usage) == (7, 6, 0, 3, 0, 10)


def test_usage_of_a_backend_that_speaks_responses_is_read_alike() -> None:
    accepted = responses.accepted({"model": "tiny"}, response_id="resp_1", created_at=1)
    answer = {"usage": {"input_tokens": "7", "output_tokens": 3.0, "cache_read_input_tokens": 2}}
    final = responses.ended(accepted, status="completed", output=[], now_s=2, answer=answer)
    assert counts(final["usage"]) == (7, 2, 0, 3, 0, 10)


json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 2**62)
    | st.floats(-1, 9)
    | st.text("0123456789.x", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["prompt_tokens", "tokens", "usage", "cached_tokens", "cost"]), inner
        )
    ),
    max_leaves=6,
)


@given(first=json, later=json)
@settings(max_examples=150, deadline=None)
def test_no_usage_raises_and_each_shown_number_is_one(first: Any, later: Any) -> None:
    found = merged(usage_in({"usage": first}), usage_in({"usage": later}, {"timings": later}))
    if (shown := usage_of(found)) is not None:
        assert all(type(number) is int and number >= 0 for number in counts(shown))
