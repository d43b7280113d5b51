"""How an answer ended: the finish reasons of all engines and APIs, and what each means for a response.

Completed is only what says so in a word that means it. A word that is in no row is taken for an answer that
was cut: its text is kept, and nobody takes it for whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto


class Meaning(Enum):
    """Meanings of finish reasons."""

    WHOLE = auto()
    LIMIT = auto()
    """A limit on tokens cut it."""
    FILTER = auto()
    """Somebody's policy cut it, or stands in its place."""
    CUT = auto()
    """Something else cut it. Schemas know two reasons for `incomplete`; this one is shown as a limit, with
    the backend's own word beside it."""
    BROKEN = auto()
    """The backend gave up: there is no answer to be shown as one."""
    UNSAID = auto()
    """As good as no reason."""


_ROWS: tuple[tuple[Meaning, str, str], ...] = (
    # -- meaning, who says so, the words (in lower case, with `_` between the parts)
    (Meaning.WHOLE, "OpenAI and nearly all", "stop tool_calls function_call"),
    (Meaning.LIMIT, "OpenAI and nearly all", "length"),
    (Meaning.FILTER, "OpenAI, Azure, Mistral, DeepSeek, Moonshot", "content_filter"),
    (Meaning.WHOLE, "TGI, Together, watsonx", "eos eos_token stop_sequence"),
    (Meaning.WHOLE, "Ollama and LM Studio, some versions", "end"),
    (Meaning.BROKEN, "Ollama: the model was loaded or unloaded, and nothing generated", "load unload"),
    (Meaning.CUT, "vLLM: a loop was broken off", "repetition"),
    (Meaning.BROKEN, "vLLM, SGLang, LMDeploy, GLM", "abort aborted"),
    (Meaning.BROKEN, "OpenRouter, vLLM, Mistral, Dynamo, watsonx", "error"),
    (Meaning.BROKEN, "Dynamo, mistral.rs, TensorRT-LLM, watsonx", "cancelled canceled user_cancel timeout"),
    (Meaning.WHOLE, "mistral.rs: what it made is no text", "generated_image generated_speech"),
    (Meaning.WHOLE, "TensorRT-LLM", "end_id stop_words"),
    (Meaning.LIMIT, "Mistral", "model_length"),
    (Meaning.WHOLE, "Anthropic, Bedrock, xAI", "end_turn tool_use"),
    (Meaning.LIMIT, "Anthropic, Bedrock, GLM", "max_tokens model_context_window_exceeded"),
    (Meaning.LIMIT, "Anthropic through LiteLLM", "compaction"),
    (Meaning.FILTER, "Anthropic", "refusal"),
    (Meaning.CUT, "Anthropic: its own tools are to go on in another call", "pause_turn"),
    (Meaning.FILTER, "Bedrock", "guardrail_intervened content_filtered"),
    (Meaning.BROKEN, "Bedrock", "malformed_model_output malformed_tool_use"),
    (Meaning.WHOLE, "Bedrock: Titan, AI21, Jurassic", "finish endoftext complete completed"),
    (Meaning.BROKEN, "DeepSeek", "insufficient_system_resource"),
    (Meaning.FILTER, "GLM, Hunyuan", "sensitive"),
    (Meaning.BROKEN, "GLM", "network_error"),
    (Meaning.WHOLE, "Cohere", "tool_call"),
    (Meaning.FILTER, "Cohere", "error_toxic"),
    (Meaning.LIMIT, "Cohere", "error_limit"),
    (Meaning.LIMIT, "MiniMax, watsonx, Reka, LM Studio", "max_output token_limit context max_length"),
    (Meaning.CUT, "watsonx", "time_limit"),
    (Meaning.WHOLE, "Baidu", "normal"),
    (Meaning.FILTER, "Gemini", "safety recitation language blocklist prohibited_content spii model_armor"),
    (Meaning.FILTER, "Gemini: images", "image_safety image_prohibited_content image_recitation"),
    (Meaning.CUT, "Gemini", "other image_other no_image escalation"),
    (Meaning.BROKEN, "Gemini: a call that it threw away", "malformed_function_call unexpected_tool_call"),
    (Meaning.BROKEN, "Gemini", "malformed_response too_many_tool_calls missing_thought_signature"),
    (Meaning.BROKEN, "Gemini: before the colon, if what follows it is new", "function_call_filter"),
    (Meaning.UNSAID, "DashScope, in each chunk but the last", "null none"),
    (Meaning.UNSAID, "Gemini, watsonx", "unspecified not_finished"),
)

_MEANINGS = {word: meaning for meaning, _, words in _ROWS for word in words.split()}

_REASONS = {
    Meaning.LIMIT: "max_output_tokens",
    Meaning.FILTER: "content_filter",
    Meaning.CUT: "max_output_tokens",
}


@dataclass(frozen=True, slots=True)
class ChatEnding:
    """The meaning of one finish reason.

    Attributes:
        word: The backend's own.
        is_known: It is in a row.
    """

    meaning: Meaning
    word: str
    is_known: bool = True

    @property
    def details(self) -> dict[str, str]:
        """Why the response is incomplete."""
        details = {"reason": _REASONS[self.meaning]}
        return {**details, "finish_reason": self.word} if self.meaning is Meaning.CUT else details


DONE = ChatEnding(Meaning.WHOLE, "stop")
"""The ending of a whole answer, stated or not."""


def ending_of(finish_reason: object, native: object = None) -> ChatEnding | None:
    """The ending that a choice states; None if it states none.

    Args:
        native: What a router was told by the server behind it: more telling where the router made `stop` of
            it,
            or has no word.
    """
    if finish_reason is None and native is None:
        return None
    said, behind = _ending(finish_reason), _ending(native)
    if behind is None or not behind.is_known:
        return said
    return behind if said is None or said.meaning is Meaning.WHOLE else said


_WORD_CHARS_MAX = 64


def _ending(word: object) -> ChatEnding | None:
    if not isinstance(word, str) or not word.strip():
        return None
    shown = word.strip()[:_WORD_CHARS_MAX]
    # Gemini: `function_call_filter: MALFORMED_FUNCTION_CALL`. What comes last says most.
    for part in (*reversed(shown.split(":")), shown):
        key = (
            re.sub(r"[^a-z0-9]+", "_", part.strip().lower())
            .removeprefix("finish_reason_")
            .removeprefix("finishreason_")
        )
        if (meaning := _MEANINGS.get(key)) is not None:
            return None if meaning is Meaning.UNSAID else ChatEnding(meaning, shown)
    return ChatEnding(Meaning.CUT, shown, is_known=False)
