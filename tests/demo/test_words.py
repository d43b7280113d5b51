"""What the simulation says, without a server."""

from __future__ import annotations

import json

import pytest

from demo.words import Call, Tool, Turn, compose, pieces

WEATHER = Tool(
    "get_weather",
    "Get the weather",
    {
        "type": "object",
        "properties": {
            "location": {"type": "string"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "days": {"type": "integer"},
            "comment": {"type": "string"},
        },
        "required": ["location", "unit", "days"],
    },
)
CLOCK = Tool("clock", "Tell the time", {})


def say(prompt: str, *earlier: Turn, tools: tuple[Tool, ...] = (), choice: str = "auto") -> str | Call:
    return compose((*earlier, Turn("user", prompt)), tools, choice)


@pytest.mark.parametrize(
    ("prompt", "words"), [("Tell me a story", 60), ("Tell me a long, slow story about owls", 400)]
)
def test_story_has_about_its_length_and_is_always_the_same(prompt: str, words: int) -> None:
    story = say(prompt)
    assert isinstance(story, str)
    assert abs(len(story.split()) - words) <= 15
    assert say(prompt) == story
    assert say(prompt + "!") != story or "about" in prompt


def test_story_is_about_what_was_asked() -> None:
    assert "the brave keeper" in str(say("Tell me a story about a brave keeper."))


def test_count_counts_and_is_capped() -> None:
    assert say("Please count to 5") == "1 2 3 4 5."
    assert len(str(say("Count to 999999999")).split()) == 10_000


def test_name_is_recalled_from_earlier_turns_only() -> None:
    told = (Turn("user", "Hello, my name is Alice."), Turn("assistant", "my name is Demo"))
    assert say("What is my name?", *told) == "Your name is Alice."
    assert say("What is my name?") == "You have not told me your name yet."


def test_call_fills_the_required_arguments() -> None:
    call = say("What is the weather in Paris?", tools=(CLOCK, WEATHER))
    assert isinstance(call, Call)
    assert call.name == "get_weather"
    assert json.loads(call.arguments) == {"location": "Paris", "unit": "celsius", "days": 1}
    assert "".join(pieces(call)) == call.arguments


def test_tool_choice_is_obeyed() -> None:
    assert say("Count to 2", tools=(CLOCK,), choice="clock") == Call("clock", "{}")
    assert say("Count to 2", tools=(CLOCK,), choice="required") == Call("clock", "{}")
    assert say("Count to 2", tools=(CLOCK,)) == "1 2."
    assert isinstance(say("What is the weather?", tools=(WEATHER,), choice="none"), str)


def test_tool_result_is_quoted_until_the_user_goes_on() -> None:
    said = (Turn("user", "weather?"), Turn("tool", "15 degrees"))
    assert "15 degrees" in str(compose(said, (WEATHER,), "required"))
    assert say("Count to 2", *said, tools=(WEATHER,)) == "1 2."


def test_pieces_join_to_the_answer() -> None:
    story = say("Tell me a story")
    assert "".join(pieces(story)) == story
