"""Why a backend failed, by the name or the words that it gives for it: two tables, and who says so.

The codes are those of the specification's `ResponseErrorCode` and a few that OpenAI's services send besides,
which clients act on: Codex and others compact a conversation on `context_length_exceeded`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """What went wrong.

    Attributes:
        code: `error.code` of the failed response.
        status: The HTTP status that it has, or would have if it were not told within a stream.
    """

    code: str
    status: int


CONTEXT = Cause("context_length_exceeded", 400)
QUOTA = Cause("insufficient_quota", 429)
FILTER = Cause("content_filter", 400)
KEY = Cause("invalid_api_key", 401)
MODEL = Cause("model_not_found", 404)
DENIED = Cause("permission_denied", 403)
RATE = Cause("rate_limit_exceeded", 429)
BUSY = Cause("server_is_overloaded", 503)
SLOW = Cause("server_error", 504)
BEHIND = Cause("server_error", 502)
AGAIN = Cause("server_error", 500)

_CAUSES = (CONTEXT, QUOTA, FILTER, KEY, MODEL, DENIED, RATE, BUSY, SLOW, BEHIND, AGAIN)
"""If an error has several, the first counts: it is the most precise, and no wait changes it."""

CODES = frozenset(
    {
        "server_error",
        "rate_limit_exceeded",
        "invalid_prompt",
        "data_residency_mismatch",
        "misalignment_policy_violation",
        "bio_policy",
        "vector_store_timeout",
        "invalid_image",
        "invalid_image_format",
        "invalid_base64_image",
        "invalid_image_url",
        "image_too_large",
        "image_too_small",
        "image_parse_error",
        "image_content_policy_violation",
        "invalid_image_mode",
        "image_file_too_large",
        "unsupported_image_media_type",
        "empty_image_file",
        "failed_to_download_image",
        "image_file_not_found",
        *(one.code for one in _CAUSES),
    }
)
"""All that an error's `code` can be."""

_NAMES = (
    (CONTEXT, "context_length_exceeded string_above_max_tokens", "OpenAI"),
    (CONTEXT, "exceed_context_size_error", "llama.cpp"),
    (CONTEXT, "model_context_window_exceeded", "Z.ai"),
    (CONTEXT, "ContextWindowExceededError", "LiteLLM"),
    (CONTEXT, "ContextOverflowError context_overflow context_window_exceeded", "LangChain and others"),
    (QUOTA, "insufficient_quota billing_hard_limit_reached billing_not_active", "OpenAI"),
    (QUOTA, "credit_balance_exhausted organization_spend_limit_exceeded", "OpenAI"),
    (QUOTA, "project_spend_limit_exceeded organization_usage_limit_exceeded", "OpenAI"),
    (QUOTA, "usage_limit_reached usage_not_included", "OpenAI, to subscribers"),
    (QUOTA, "exceeded_current_quota_error", "Moonshot"),
    (QUOTA, "insufficient_balance insufficient_credits payment_required", "DeepSeek, OpenRouter"),
    (QUOTA, "billing_error", "Anthropic"),
    (QUOTA, "insufficient_user_quota pre_consume_token_quota_failed", "one-api, new-api"),
    (QUOTA, "Arrearage ServiceQuotaExceededException", "DashScope, Bedrock"),
    (FILTER, "content_filter ResponsibleAIPolicyViolation", "Azure"),
    (FILTER, "content_policy_violation moderation_blocked cyber_policy", "OpenAI"),
    (FILTER, "ContentPolicyViolationError", "LiteLLM"),
    (FILTER, "DataInspectionFailed", "DashScope"),
    (FILTER, "prohibited_content BLOCKLIST SPII", "Gemini"),
    (FILTER, "guardrail_violation guardrail_intervened", "PhariaAI, Bedrock"),
    (KEY, "invalid_api_key AuthenticationError missing_api_key", "OpenAI, Anthropic, LiteLLM"),
    (KEY, "API_KEY_INVALID UNAUTHENTICATED", "Gemini"),
    (KEY, "InvalidApiKey UnrecognizedClientException ExpiredTokenException", "DashScope, Bedrock"),
    (MODEL, "model_not_found model_not_available ModelNotFound", "OpenAI, Together, DashScope"),
    (MODEL, "DeploymentNotFound invalid_model", "Azure, Mistral"),
    (DENIED, "permission_error PERMISSION_DENIED PermissionDeniedError", "Anthropic, Gemini, LiteLLM"),
    (DENIED, "unsupported_country_region_territory AccessDeniedException", "OpenAI, Bedrock"),
    (RATE, "rate_limit_exceeded rate_limit_error RateLimitError", "OpenAI, Anthropic, LiteLLM"),
    (RATE, "too_many_requests rate_limited rate_limit_reached_error", "OpenAI, Mistral, Moonshot"),
    (RATE, "RESOURCE_EXHAUSTED", "Gemini"),
    (RATE, "ThrottlingException TooManyRequestsException", "Bedrock"),
    (RATE, "Throttling Throttling.RateQuota Throttling.AllocationQuota", "DashScope"),
    (BUSY, "server_is_overloaded service_unavailable_error engine_overloaded slow_down", "OpenAI"),
    (BUSY, "overloaded_error overloaded", "Anthropic, TGI"),
    (BUSY, "service_unavailable ServiceUnavailableError ServiceUnavailableException", "many"),
    (BUSY, "unavailable_error UNAVAILABLE", "llama.cpp while it loads a model, Gemini"),
    (BUSY, "engine_overloaded_error ModelNotReadyException", "Moonshot, Bedrock"),
    (BUSY, "provider_overloaded service_tier_capacity_exceeded", "OpenRouter, Mistral"),
    (BUSY, "server_busy capacity_exceeded model_overloaded queue_full", "others"),
    (SLOW, "timeout_error timeout request_timeout gateway_timeout", "Anthropic and others"),
    (SLOW, "DEADLINE_EXCEEDED ModelTimeoutException APITimeoutError", "Gemini, Bedrock, LiteLLM"),
    (BEHIND, "bad_gateway provider_unavailable APIConnectionError", "OpenRouter, LiteLLM"),
)
"""Values of `code`, `type`, `status` and the like, in any spelling."""

_WORDS = (
    (CONTEXT, r"max(imum)? context (length|size|window|limit)", "OpenAI, vLLM, OpenRouter, DeepSeek"),
    (CONTEXT, r"exceeds? the context window", "OpenAI"),
    (CONTEXT, r"(longer|larger|greater) than the (model'?s )?(max(imum)? )?context", "SGLang, LM Studio"),
    (CONTEXT, r"context length is (only )?\d+|prompt \(length \d+\) is longer", "vLLM"),
    (
        CONTEXT,
        r"(exceeds?|greater than|longer than) (the )?max_(model|seq|input)_len",
        "vLLM, TabbyAPI, TensorRT-LLM",
    ),
    (CONTEXT, r"exceeds? (the )?session.len", "LMDeploy"),
    (CONTEXT, r"exceeds? (the )?(available|model'?s?) context|is too large to process", "llama.cpp"),
    (CONTEXT, r"requested tokens? \(\d+\) exceeds? context window", "llama-cpp-python"),
    (CONTEXT, r"context (length|size|window|limit) (was |is |has been )?(exceed|overflow)", "many"),
    (CONTEXT, r"exceed(s|ed)? (max(imum)? )?context (length|size|window|limit)", "Ollama and others"),
    (CONTEXT, r"exceeds the context length|prompt too long", "Ollama"),
    (CONTEXT, r"context (window )?overflow|first \d+ tokens when|tokens to keep from the", "LM Studio"),
    (CONTEXT, r"`?inputs`? tokens \+ `?max_new_tokens|`?inputs`? must have less than \d+", "TGI"),
    (CONTEXT, r"exceeds the maximum number of tokens|input token count .{0,40}exceeds", "Gemini"),
    (CONTEXT, r"prompt is too long|exceed context limit", "Anthropic"),
    (CONTEXT, r"input is too long|too many input tokens", "Bedrock"),
    (CONTEXT, r"too large for model with \d+", "Mistral"),
    (CONTEXT, r"reduce the length of (the|your) (messages|prompt|input)", "Groq, OpenAI"),
    (CONTEXT, r"maximum (prompt|input) length is|maximum allowed input length", "xAI, Together"),
    (CONTEXT, r"exceeded model token limit|context window exceeds limit", "Moonshot, MiniMax"),
    (CONTEXT, r"current length is \d+ while limit is", "Cerebras"),
    (CONTEXT, r"range of input length should be", "DashScope"),
    (CONTEXT, r"token count of \d+ exceeds", "GitHub Copilot"),
    (CONTEXT, r"sequence length is longer than|exceeds max_position_embeddings", "transformers"),
    (CONTEXT, r"(kv|key.value) cache is full|configured context size is", "local servers"),
    (CONTEXT, r"input tokens .{0,40}cannot exceed", "watsonx"),
    (CONTEXT, r"too many tokens|token limit exceeded", "Cohere and others"),
    (CONTEXT, r"上下文.{0,8}(超|过长)|超(出|过).{0,12}(上下文|最大长度)", "Zhipu, DashScope"),
    (QUOTA, r"exceeded your current quota|credit balance is too low", "OpenAI, Anthropic"),
    (QUOTA, r"insufficient (quota|balance|credits?|funds)", "DeepSeek, OpenRouter, MiniMax"),
    (QUOTA, r"requires more credits|out of credits", "OpenRouter"),
    (QUOTA, r"余额不足|欠费|额度不足", "Zhipu, new-api"),
    (FILTER, r"content management policy|content[ _](filter|policy)", "Azure"),
    (FILTER, r"safety system|inappropriate content|content exists risk", "OpenAI, DashScope, DeepSeek"),
    (KEY, r"(incorrect|invalid|wrong|missing|no) api[ -]?key|api key (is )?not valid", "OpenAI, Gemini"),
    (MODEL, r"models?[ :/]+[`'\"]?[^\s`'\"]+[`'\"]? (does not exist|(is )?not found)", "OpenAI, Ollama"),
    (MODEL, r"no such model|unknown model|no models? (is )?loaded", "LM Studio"),
    (MODEL, r"invalid model|model (is )?not (loaded|exist)|模型不存在", "Mistral, DeepSeek, Zhipu"),
    (RATE, r"rate[ _-]?limit|too many (concurrent )?requests", "many"),
    (RATE, r"(tokens|requests) per min", "Groq"),
    (RATE, r"请求过于频繁|并发数过高|限流", "Zhipu, DashScope"),
    (BUSY, r"overloaded|(at|over|no) capacity|capacity exceeded|server (is )?busy", "many"),
    (BUSY, r"no healthy upstream|upstream connect error", "Envoy, Istio"),
    (BUSY, r"temporarily unavailable|loading model|currently loading", "nginx, llama.cpp, Hugging Face"),
    (BUSY, r"负载(已|过高|较高)|访问量过大|繁忙", "new-api, Zhipu"),
    (SLOW, r"upstream request timeout", "Envoy"),
    (BEHIND, r"reset before headers|bad gateway", "Envoy, nginx"),
    (AGAIN, r"you can retry your request", "OpenAI"),
)
"""Words of messages, for errors without a telling name."""

_BEYOND_ANY_WAIT = re.compile(
    r"request too large|too long|must be reduced|reduce your message|limit: 0\b|too many searches",
    re.IGNORECASE,
)
"""In a rate limit that the same request meets at any time: it has more tokens itself than OpenAI and Groq let
through in a minute; Gemini lets none through at all; Ollama counts the searches of one answer."""


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_BY_NAME = {_plain(name): cause for cause, names, _ in _NAMES for name in names.split()}
_BY_WORDS = [
    (cause, re.compile("|".join(words for one, words, _ in _WORDS if one is cause), re.IGNORECASE))
    for cause in dict.fromkeys(cause for cause, _, _ in _WORDS)
]
_BY_STATUS = {401: KEY, 402: QUOTA, 403: DENIED, 429: RATE, 529: BUSY}
_REQUEST_STATUSES = frozenset({400, 404, 413, 415, 422})


def by_name(names: Iterable[str]) -> Cause | None:
    """The cause that an error's names mean; None if they mean none."""
    found = {_BY_NAME.get(_plain(name)) for name in names}
    return next((cause for cause in _CAUSES if cause in found), None)


def by_words(message: str) -> Cause | None:
    """The cause that a message means."""
    return next((cause for cause, words in _BY_WORDS if words.search(message)), None)


def code_of(status: int | None) -> str:
    """The cause that an HTTP status means, if nothing else tells."""
    if status in _BY_STATUS:
        return _BY_STATUS[status].code
    return "invalid_prompt" if status in _REQUEST_STATUSES else "server_error"


def is_beyond_any_wait(message: str) -> bool:
    """True if a rate limit would refuse the same request at any other time, too."""
    return _BEYOND_ANY_WAIT.search(message) is not None
