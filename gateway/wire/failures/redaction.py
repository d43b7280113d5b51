"""Removes from messages what no client may see: addresses of machines, and keys.

They are found by what they look like in the words of servers and their libraries. Each pattern stands in
`PATTERNS` with an example, by which it is tested; so are messages that must stay as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

BLOT: Final = "***"

CHARS_MAX: Final = 8_000
"""Characters that are searched, in 50 ms at most. A longer text is cut; a message keeps 2000."""

_NAME = r"(?=[0-9-]{0,62}[A-Za-z])[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOTTED = rf"{_NAME}(?:\.{_NAME}){{1,8}}"
_DASHED = r"(?=[0-9-]{0,62}[A-Za-z])[A-Za-z0-9]+(?:-[A-Za-z0-9]+)+"
_CONTAINER = r"[0-9a-f]{12}"
_STARTS = r"(?<![\w.@/-])"
_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_IPV4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_HEX = r"[0-9A-Fa-f]{1,4}"
_RANDOM = r"(?=[\w*-]*[\d*])[\w*-]"
"""A character of a word in which there is a digit, or a part that was blotted out already."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """The pattern of one kind.

    Attributes:
        regex: Of its group `it`, if it has one, else of all it matches, nothing is left.
        example: A message with one.
    """

    kind: str
    regex: re.Pattern[str]
    example: str


def _row(kind: str, regex: str, example: str) -> Pattern:
    return Pattern(kind, re.compile(regex), example)


PATTERNS: Final = (
    # -- addresses
    _row(
        "URL",
        r"(?i:[a-z][a-z0-9+.-]{1,30}(?::|%3a)(?:/|%2f){2})[^\s\"'`<>{}|^]+?(?=[.,;:!?)\]]*(?:[\s\"'`<>{}|^]|$))",
        'Post "http://vllm-3.gpu:8000/v1/chat/completions": EOF',
    ),
    _row("socket", r"\bunix:[^\s\"'`,;)]+", "dial unix:/run/engine.sock: no such file"),
    _row("mail address", r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+", "ask ops@gpu.example for more"),
    _row("IPv4", rf"(?<![\d.]){_IPV4}(?:/\d{{1,2}}|:\d{{1,5}})?(?!\.?\d)", "dial tcp 10.9.8.7:8000: refused"),
    _row(
        "IPv6 in brackets",
        r"\[[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:%\w+)?\](?::\d{1,5})?",
        "[fd00::7]:8000",
    ),
    _row(
        "IPv6",
        rf"(?<![\w:.])(?:(?:{_HEX}:){{7}}{_HEX}|(?:{_HEX}(?::{_HEX}){{0,6}})?::(?:{_HEX}:){{0,6}}(?:{_IPV4}|{_HEX}))(?![\w:])",
        "no route to fe80::1ff:fe23:4567:890a",
    ),
    _row(
        "name with a port",
        rf"{_STARTS}(?:localhost|{_DOTTED}|{_DASHED}|{_CONTAINER}):\d{{2,5}}(?![\w:]|\.\w)",
        "Cannot connect to host vllm-worker-3:8000 ssl:default",
    ),
    _row(
        "one word with a port",
        r"\b(?:to|at|from|via|on|by|host|tcp|server|backend|upstream|endpoint|address):? ['\"]?"
        rf"(?P<it>{_NAME}:\d{{2,5}})(?![\w:])",
        "connection to ollama:11434 was refused",
    ),
    _row(
        "name that was looked for",
        r"(?i:\b(?:host=|to host |resolve (?:host)?(?:name)?:? ?|ENOTFOUND |EAI_AGAIN |lookup |dial tcp ))"
        r"['\"]?"
        rf"(?P<it>{_NAME}(?:\.{_NAME}){{0,8}})",
        "dial tcp: lookup vllm-svc: no such host",
    ),
    _row("Python's address", r"\((?P<it>'[^'\s]{1,253}', ?\d{1,5})\)", "Connect call failed ('gpu-7', 8000)"),
    _row(
        "name of a server",
        rf"{_STARTS}(?:{_NAME}\.){{1,8}}(?:local|internal|lan|intranet|corp|private|localdomain|svc|arpa"
        r"|com|net|org|io|ai|dev|cloud|app)(?![\w-]|\.\w)",
        "engine-0.engine.llm.svc.cluster.local refused",
    ),
    # -- keys
    _row(
        "private key",
        r"(?s)-----BEGIN [A-Z ]*KEY-----.*?(?:-----END [A-Z ]*KEY-----|$)",
        "-----BEGIN PRIVATE KEY-----\nMIIE",
    ),
    _row(
        "JSON web token",
        r"\beyJ[\w-]{8,}(?:\.[\w-]*){0,2}",
        "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln expired",
    ),
    _row(
        "key with a dash",  # OpenAI, Anthropic, OpenRouter; Cerebras, xAI, NVIDIA, Perplexity, Tavily, GitLab
        rf"(?<![A-Za-z0-9])(?:sk|rk|pk|csk|xai|nvapi|pplx|tvly|glpat)-(?:{_RANDOM}[\w*.…-]{{5,}}|[\w-]*$)",
        "Incorrect API key provided: sk-proj-Ab1********************xyz.",
    ),
    _row(
        "key with an underscore",  # Hugging Face, Groq, Fireworks, Replicate, GitHub, npm, Docker, Together
        r"(?<![A-Za-z0-9])(?:[sprw]k|hf|api_org|gsk|fw|r8|gh[a-z]|github_pat|npm|whsec|dckr_pat|lsv2|pcsk|esecret"
        rf"|tgp_v1)_{_RANDOM}[\w*-]{{15,}}",
        "gated model; token hf_AbCdEfGhIjKlMnOpQrStUvWx12 may not read it",
    ),
    _row(
        "key with a beginning",  # Google, AWS, Slack, SendGrid, Databricks, Alibaba
        r"\b(?:AIza[\w-]{20,}|ya29\.[\w.-]{10,}|A(?:KIA|SIA|GPA|IDA|ROA)[A-Z0-9]{12,}|xox[a-z]-[\w-]{10,}"
        r"|SG\.[\w-]{10,}\.[\w-]{10,}|dapi[0-9a-f]{16,}|LTAI\w{12,})",
        "API key AIzaSyA-0123456789abcdefghijklmnopqrstu not valid",
    ),
    _row(
        "credential of a header",
        r"(?i:\b(?:bearer|basic) )(?P<it>(?=\S*\d)[\w.~+/=*-]{6,})",
        "Authorization: Bearer 4f6d1b9c is unknown",
    ),
    _row(
        "what is called a key",
        r"(?i:(?<![A-Za-z])(?:api|access|auth|secret|private)?[-_ ]?"
        r"(?:key|token|secret|password|passwd|credential)s?\b)"
        r"[\"']?(?: ?[:=] ?| is | was | provided: | )[\"'`(]?"
        r"(?P<it>(?![a-z_]+(?:\.(?:\d+|[a-z_]+))+)(?=[^\s\"'`]*\d)(?=[^\s\"'`]*[A-Za-z*])[\w.+/=~*-]{8,})",
        "Invalid API key 'a94a8fe5ccb19ba61c4c0873d391e987'",
    ),
    _row(
        "long and random",
        r"(?<![\w-])(?=[A-Za-z0-9]*\d)(?=[A-Za-z0-9]*[a-z])(?=[A-Za-z0-9]*[A-Z])[A-Za-z0-9]{32,}(?![\w-])",
        "refused Zx9Kq2Lm8Np4Rt6Vw1Yb3Cd5Fg7Hj0Sa for this deployment",
    ),
)

_NAME_CHARS_MAX: Final = 100
_NAMES_MAX: Final = 256
"""Names whose look is remembered: nearly all requests have one of a few models."""

_ESCAPE = re.compile(r"(?<!\\)\\++(?:u00([0-7][0-9A-Fa-f])|([/\"']))")
_QUOTED_DEEPEST: Final = 3
"""A server quotes the JSON of a second one, which quotes that of a third."""


def blotted(text: str) -> str:
    """A message without addresses and keys; as it is, if it has none."""
    text = text[:CHARS_MAX]
    plain = _unescaped(text) if "\\" in text else text
    clean = plain
    for pattern in PATTERNS:
        clean = pattern.regex.sub(_blot, clean)
    return text if clean == plain else clean


def name_shown(name: object) -> str | None:
    """A name that a client gave, such as a model's, as it may stand in a log line."""
    return _name_blotted(name[:_NAME_CHARS_MAX]) if isinstance(name, str) else None


_name_blotted = lru_cache(_NAMES_MAX)(blotted)


def _blot(match: re.Match[str]) -> str:
    whole: str = match[0]
    if "it" not in match.re.groupindex:
        return BLOT
    start, end = match.start("it") - match.start(), match.end("it") - match.start()
    return f"{whole[:start]}{BLOT}{whole[end:]}"


def _unescaped(text: str) -> str:
    """As it reads without the escapes of JSON: in quoted JSON `http:\\/\\/` is an address, too."""
    for _ in range(_QUOTED_DEEPEST):
        text = _ESCAPE.sub(lambda found: found[2] or chr(int(found[1], 16)), text)
    return text
