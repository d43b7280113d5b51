"""What the simulated model says: the same input always gets the same words.

Every word is computed from the conversation, by rules one can read here; there is no model. Pure:
no clock, no I/O, and no randomness but the one seeded by the prompt.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from itertools import cycle
from typing import Any

SHORT_STORY_WORDS = 60
LONG_STORY_WORDS = 400
COUNT_MAX = 10_000
"""`count to a billion` must not fill the memory before the first word is out."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing said earlier; `role` is user, assistant, system, developer or tool (a tool's result)."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the caller offers; `parameters` is its JSON schema."""

    name: str
    description: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """A wish to have a function called; `arguments` is JSON text, as the API wants it."""

    name: str
    arguments: str


def compose(turns: tuple[Turn, ...], tools: tuple[Tool, ...], tool_choice: str) -> str | Call:
    """Decide the answer to a conversation.

    Args:
        tool_choice: `auto`, `none`, `required`, or the name of the one tool that must be called.
    """
    prompt = next((turn.text for turn in reversed(turns) if turn.role == "user"), "")
    if turns and turns[-1].role == "tool":
        results = [turn.text for turn in _after_last_user(turns) if turn.role == "tool"]
        return f'The tool answered: "{"; ".join(results)}". That is all I know about it.'
    if (tool := _wanted_tool(prompt, tools, tool_choice)) is not None:
        return Call(tool.name, json.dumps(_arguments(tool.parameters, prompt), ensure_ascii=False))
    if re.search(r"what(?:'s|’s| is) my name", prompt, re.IGNORECASE):
        return _recall_name(turns)
    if count := re.search(r"count (?:from 1 |from one )?to (\d{1,9})", prompt, re.IGNORECASE):
        return " ".join(str(number) for number in range(1, min(int(count[1]), COUNT_MAX) + 1)) + "."
    is_long = re.search(r"\blong\b.{0,40}\bstory\b", prompt, re.IGNORECASE | re.DOTALL)
    return _story(prompt, LONG_STORY_WORDS if is_long else SHORT_STORY_WORDS)


def pieces(answer: str | Call) -> list[str]:
    """Cut an answer into what the server sends as one delta each; joined they are the answer again."""
    if isinstance(answer, Call):
        return re.findall(r"\w+|\W+", answer.arguments)
    return re.findall(r"\s*\S+", answer)


def count_words(turns: tuple[Turn, ...]) -> int:
    return sum(len(turn.text.split()) for turn in turns)


def _after_last_user(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    last = max((index for index, turn in enumerate(turns) if turn.role == "user"), default=-1)
    return turns[last + 1 :]


def _recall_name(turns: tuple[Turn, ...]) -> str:
    """Only users' own words count: the latest name wins, and the question itself names nobody."""
    said = "\n".join(turn.text for turn in turns if turn.role == "user")
    names = re.findall(r"my name is (\w[\w'’-]*)", said, re.IGNORECASE)
    return f"Your name is {names[-1]}." if names else "You have not told me your name yet."


def _wanted_tool(prompt: str, tools: tuple[Tool, ...], tool_choice: str) -> Tool | None:
    if not tools or tool_choice == "none":
        return None
    about_weather = [tool for tool in tools if "weather" in f"{tool.name} {tool.description}".lower()]
    match tool_choice:
        case "auto":
            return (about_weather or list(tools))[0] if "weather" in prompt.lower() else None
        case "required":
            return (about_weather or list(tools))[0]
        case name:
            return next((tool for tool in tools if tool.name == name), None)


def _arguments(schema: dict[str, Any], prompt: str) -> dict[str, Any]:
    """Fill what the schema requires; a schema that requires nothing gets all its properties."""
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    required = schema.get("required")
    names = required if isinstance(required, list) and required else list(properties)
    return {str(name): _value(str(name), properties.get(name), prompt) for name in names}


def _value(name: str, schema: Any, prompt: str) -> Any:
    schema = schema if isinstance(schema, dict) else {}
    if isinstance(choices := schema.get("enum"), list) and choices:
        return choices[0]
    match schema.get("type", "string"):
        case "integer" | "number":
            return 1
        case "boolean":
            return True
        case "array":
            return []
        case "object":
            return _arguments(schema, prompt)
        case _ if re.search("date|day|time|when", name, re.IGNORECASE):
            return "today"
        case _:
            place = re.search(r"\b(?:in|at|for) ([A-Z][\w-]*(?: [A-Z][\w-]*)*)", prompt)
            return place[1] if place else "Berlin"


_HEROES = ("an otter", "a lighthouse keeper", "a clockmaker", "a heron", "a ferry pilot", "a young fox")
_PLACES = (
    "the harbour",
    "the north meadow",
    "the old mill",
    "the island",
    "the railway bridge",
    "the market",
)
_FRIENDS = ("a patient mole", "the baker", "a one-eyed gull", "the night guard", "a travelling cook")
_TIMES = ("One morning", "That evening", "After the rain", "On the third day", "Before dawn", "Much later")
_DEEDS = (
    "counted the boats twice",
    "found a letter without a name",
    "mended the lamp with a piece of string",
    "waited for an answer that took its time",
    "shared warm bread with {friend}",
    "drew a map of every way home",
    "listened to the wind going round {place}",
    "asked {friend} how long a promise lasts",
    "wrote each step down, so that nothing was lost",
)
_TURNS = (
    "and nobody noticed",
    "while the water stood quite still",
    "although the bell had already rung",
    "and then began again from the same place",
    "because leaving is not the same as stopping",
    "and the whole of {place} seemed to agree",
)


def _story(prompt: str, words: int) -> str:
    """Tell a story of about `words` words, with a last sentence so that it ends instead of breaking off."""
    dice = random.Random(prompt)
    about = re.search(r"\babout ((?:an? |the )?[\w' -]{3,40})\b", prompt, re.IGNORECASE)
    hero = about[1].strip() if about else dice.choice(_HEROES)
    place, friend = dice.choice(_PLACES), dice.choice(_FRIENDS)
    story = [f"Once upon a time, close to {place}, this happened to {hero}."]
    subject = re.sub(r"^an? ", "the ", hero)
    # Shuffled decks, not single draws: nothing comes again before everything else has come.
    times, deeds, turns = (cycle(dice.sample(deck, len(deck))) for deck in (_TIMES, _DEEDS, _TURNS))
    while sum(len(sentence.split()) for sentence in story) < words - 20:
        deed = f"{next(deeds)}, {next(turns)}".format(friend=friend, place=place)
        story.append(f"{next(times)} {subject} {deed}.")
    story.append(f"And if {place} is still there, you may go and ask {friend}.")
    return " ".join(story)
