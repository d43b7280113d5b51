"""The fields of chunks that say nothing to a client: about the machinery, or what is said elsewhere as well.

What is neither here nor read in `content` or `stream`, and has a text in it, is unmapped: it is counted, and
an answer that holds nothing else fails. A field of a new engine that is no loss gets its row here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

_ROWS: tuple[tuple[str, str, str], ...] = (
    # -- where it stands, who sends it, the names
    ("chunk", "all", "id object created model choices usage system_fingerprint service_tier error"),
    ("chunk choice", "all, read elsewhere", "delta message"),
    ("choice", "all, read elsewhere", "index text finish_reason finish_details logprobs error usage"),
    ("delta", "all", "role name usage"),
    ("part", "all", "type id index format output_format detail cache_control role"),
    ("part", "all", "mime_type mimeType media_type"),
    ("chunk", "OpenAI: random letters that hide a length", "obfuscation"),
    ("chunk", "Mistral: the same", "p"),
    ("chunk", "OpenRouter", "provider"),
    ("choice", "OpenRouter", "native_finish_reason"),
    ("delta part", "OpenRouter, Anthropic, Gemini", "signature thought_signature thoughtSignature"),
    ("choice", "vLLM", "stop_reason token_ids routed_experts"),
    ("chunk", "vLLM", "prompt_token_ids prompt_logprobs prompt_text kv_transfer_params"),
    ("choice", "SGLang", "matched_stop hidden_states"),
    ("chunk", "SGLang", "metadata sglext"),
    ("chunk", "llama.cpp", "timings __verbose"),
    ("chunk", "LM Studio", "stats model_info runtime"),
    ("chunk", "Ollama", "created_at done_reason"),
    ("chunk", "Dynamo", "nvext"),
    ("chunk choice", "Azure", "content_filter_results content_filter_result content_filter_offsets"),
    ("chunk choice", "Azure: of the prompt", "prompt_filter_results prompt_annotations content_filter_raw"),
    ("chunk", "Groq", "x_groq usage_breakdown"),
    ("chunk choice delta", "Together", "token_id seed prompt"),
    ("chunk choice", "Fireworks", "raw_output perf_metrics"),
    ("chunk", "Cerebras, SambaNova", "time_info"),
    ("chunk", "Perplexity: which kind of chunk", "status type"),
    ("chunk", "MiniMax", "base_resp input_sensitive_type output_sensitive_type"),
    ("chunk", "Gemini", "usage_metadata usageMetadata modelVersion responseId"),
    ("delta", "LiteLLM: of Gemini's signatures", "thought_signatures"),
    ("chunk choice delta", "LiteLLM: looked into", "provider_specific_fields"),
    ("chunk", "LiteLLM: the request's", "stream_options"),
    ("chunk delta", "Vercel, Portkey", "provider_metadata hook_results"),
    ("chunk", "Bedrock", "amazon-bedrock-invocationMetrics amazon-bedrock-trace"),
    ("chunk", "Bedrock", "amazon-bedrock-guardrailAction"),
)

SILENT = {
    place: frozenset(name for places, _, names in _ROWS if place in places.split() for name in names.split())
    for place in ("chunk", "choice", "delta", "part")
}
"""Names of harmless fields, by the place where they stand."""

_ENDINGS = ("_id", "_ids", "Id", "_fingerprint", "_signature")
"""Patterns of names that are never content: ids of requests, sessions and traces."""

_LEVELS_MAX = 4


def telling(holder: dict[str, Any], place: str) -> list[str]:
    """The fields of a `chunk`, `choice`, `delta` or `part` that may say something to a client."""
    silent = SILENT[place]
    return [
        name for name, value in holder.items() if value and name not in silent and not name.endswith(_ENDINGS)
    ]


def unsaid(value: Any, where: str, said: Collection[str] = ()) -> Iterator[str]:
    """The places within a value that have a text which nothing was made of.

    Args:
        where: The place of the value itself.
        said: The texts that something was made of.
    """
    todo = [(value, where)]
    while todo:
        item, where = todo.pop()
        if isinstance(item, str):
            if item and not item.isspace() and item not in said:
                yield where
        elif isinstance(item, list):
            todo += [(inner, where) for inner in item]
        elif isinstance(item, dict):
            is_deep = where.count(".") >= _LEVELS_MAX
            todo += [(item[name], where if is_deep else f"{where}.{name}") for name in telling(item, "part")]


def texts_in(value: Any) -> set[str]:
    """All texts within a value."""
    found: set[str] = set()
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            found.add(item)
        elif isinstance(item, list | dict):
            todo += item if isinstance(item, list) else item.values()
    return found


def has_text(value: Any) -> bool:
    """True if there is any text within a value."""
    return any(text and not text.isspace() for text in texts_in(value))
