"""What a request of LiteLLM's is known by: all that may change its answer."""

# LiteLLM is typed with what can't be checked beside SDK 3, which this package is checked with.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportAttributeAccessIssue=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import litellm
from litellm.types.utils import is_litellm_owned_kwarg

from asynccache.keys.canonical import canonical_value
from asynccache.keys.denied import (
    DENIED_MEMBERS,
    is_denied_header,
    is_denied_query,
    without_credentials,
)

PREFIX: Final = "asynccache.litellm/1"
# Left out of the key: who pays, who is told, how long to wait, and what LiteLLM adds on its way.
_DENIED: Final = frozenset({
    "api_key", "azure_ad_token", "azure_ad_token_provider", "azure_password", "azure_username",
    "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "client_id",
    "client_secret", "litellm_credential_name", "secret_fields", "vertex_credentials",
    "acompletion", "aembedding", "atext_completion", "cache", "cache_key", "caching", "client",
    "dynamic_cache_object", "litellm_call_id", "litellm_disabled_callbacks", "litellm_logging_obj",
    "litellm_metadata", "litellm_params", "litellm_request_debug", "litellm_session_id",
    "litellm_trace_id", "logger_fn", "metadata", "model_info", "no-log", "parent_otel_span",
    "preset_cache_key", "proxy_server_request", "shared_session", "tags", "ttl", "verbose",
    "callbacks", "success_callback", "failure_callback", "input_callback",
    "attempted_targets", "cooldown_time", "fallback_depth", "force_timeout", "max_fallbacks",
    "max_retries", "num_retries",
    "request_timeout", "retry_policy", "retry_strategy", "stream_timeout", "timeout",
}) | DENIED_MEMBERS  # fmt: skip
_ADDRESSES: Final = (
    "_API_BASE", "_BASE_URL", "LITELLM_DEFAULT_EMBEDDING_ENCODING_FORMAT",
    "LITELLM_REASONING_AUTO_SUMMARY",
)  # fmt: skip
"""How the variables end that LiteLLM finds a server by, whoever's, or changes requests by."""
_WHEREABOUTS: Final = (
    "_ACCOUNT_ID", "_API_TYPE", "_API_VERSION", "_CUSTOM_HEADERS", "_ENDPOINT", "_HOST",
    "_LOCATION", "_ORGANIZATION", "_PROJECT", "_PROJECT_ID", "_REGION", "_REGION_NAME",
    "_SPACE_ID", "_URL", "_WORKSPACE_ID",
)  # fmt: skip
"""How they end where others have such names too, so that only the provider's own count."""
_ALIASES: Final = {
    "amazon": ("AWS",), "bedrock": ("AWS",), "gemini": ("GOOGLE",), "huggingface": ("HF",),
    "sagemaker": ("AWS",), "sap": ("AICORE",), "vertex": ("GOOGLE",), "watsonx": ("WML", "WX"),
}  # fmt: skip
"""What a provider's variables begin with, beside the first word of its name."""
_ANY_PROVIDER: Final = (
    "AICORE", "ANTHROPIC", "AWS", "AZURE", "BEDROCK", "DATABRICKS", "GOOGLE", "HF", "OPENAI",
    "VERTEX", "WATSONX", "WML", "WX",
)  # fmt: skip
_SETTINGS: Final = (
    "add_function_to_prompt", "api_base", "api_version", "bedrock_neutralize_orphaned_tool_blocks",
    "custom_prompt_dict", "disable_add_prefix_to_prompt",
    "disable_add_transform_inline_image_block", "disable_copilot_system_to_assistant",
    "disable_stop_sequence_limit", "drop_params", "enable_gemini_default_thinking_level_low",
    "gdc_api_base", "gemini_include_thoughts_default", "max_tokens", "modify_params",
    "openai_system_messages_first", "organization", "project", "reasoning_auto_summary",
    "reasoning_effort_rounding", "route_all_chat_openai_to_responses",
    "use_chat_completions_url_for_anthropic_messages", "use_litellm_proxy",
    "vertex_ai_safety_settings", "vertex_location", "vertex_project",
)  # fmt: skip
"""What LiteLLM's module may be told that changes what is sent."""


def keyed(kwargs: Mapping[str, Any]) -> dict[str, object]:
    """Return what of a request is in its key, as it is."""
    return {
        name: value
        for name, value in kwargs.items()
        if value is not None
        and name not in _DENIED
        and not (name.startswith("_") and is_litellm_owned_kwarg(name))
    }


def request_key(kwargs: Mapping[str, Any], namespace: str | None) -> str:
    """Return the digest of everything in and around a request that may change its answer.

    Raises:
        NotCanonicalError: Something in it has no canonical form.
    """
    request: dict[str, object] = {}
    for name, value in keyed(kwargs).items():
        part = _PARTS.get(name, _plain)(value)
        if part is not None:
            request[name] = part
    model = kwargs.get("model")
    alias = litellm.model_alias_map.get(model) if isinstance(model, str) else None
    provider = kwargs.get("custom_llm_provider") or _provider(alias or model)
    around = (alias, _environment(provider), _settings(), _of_client(kwargs.get("client")))
    canonical = canonical_value((PREFIX, namespace, request, around))
    return hashlib.sha256(canonical).hexdigest()


def _provider(model: object) -> str:
    """Return whose a model is, by its name alone; empty where that doesn't say."""
    name = str(model or "")
    prefix, slash, _ = name.partition("/")
    if slash:
        return prefix if prefix in litellm.provider_list else ""
    return str(litellm.model_cost.get(name, {}).get("litellm_provider") or "")


def _environment(provider: str) -> dict[str, str]:
    """Return what LiteLLM may take from the environment where a request is silent."""
    word = provider.replace("-", "_").partition("_")[0]
    own = ("OPENAI", word.upper(), *_ALIASES.get(word, ())) if word else _ANY_PROVIDER
    return {
        name: os.environ.get(name, "")
        for name in os.environ  # without values: decoding all of them would cost as much again
        if name.endswith(_ADDRESSES) or (name.endswith(_WHEREABOUTS) and name.startswith(own))
    }


def _settings() -> dict[str, object]:
    found = {name: value for name in _SETTINGS if (value := getattr(litellm, name, None))}
    if headers := _headers(getattr(litellm, "headers", None)):
        found["headers"] = headers
    return found


def _of_client(client: object) -> object:
    """Return what a client of the caller's own adds to a request: where it goes, and as whom."""
    named = {
        name: _url(value)
        for name in ("base_url", "organization", "project")
        if (value := getattr(client, name, None)) is not None
    }
    headers = _headers(getattr(client, "_custom_headers", None))
    return (named, headers, _query(getattr(client, "_custom_query", None)))


def _headers(headers: object) -> object:
    """Return the headers that belong in a key; None for none."""
    if not isinstance(headers, Mapping):
        return headers
    named = cast("Mapping[str, object]", headers)
    return {name: v for name, v in named.items() if not is_denied_header(name)} or None


def _query(query: object) -> object:
    """Return the query parameters that belong in a key; None for none."""
    if not isinstance(query, Mapping):
        return query
    named = cast("Mapping[str, object]", query)
    return {name: v for name, v in named.items() if not is_denied_query(name)} or None


def _body(body: object) -> object:
    """Return the members of a body that belong in a key; None for none."""
    if not isinstance(body, Mapping):
        return body
    named = cast("Mapping[str, object]", body)
    return {name: v for name, v in named.items() if name not in DENIED_MEMBERS} or None


def _url(url: object) -> object:
    """Return a server's address without the credentials in it."""
    return without_credentials(str(url))[0]


def _plain(value: object) -> object:
    """Return a value whose JSON schema stands for a class of answers."""
    schema = getattr(value, "model_json_schema", None)
    return ("schema", schema()) if isinstance(value, type) and callable(schema) else value


_PARTS: Final[Mapping[str, Callable[[object], object]]] = {
    "headers": _headers,
    "extra_headers": _headers,
    "extra_body": _body,
    "extra_query": _query,
    "api_base": _url,
    "base_url": _url,
}
"""What is made of those arguments that may hold credentials."""
