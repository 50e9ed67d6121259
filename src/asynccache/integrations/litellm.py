"""The cache as LiteLLM's: ``litellm.cache = LiteLLMCache()``.

LiteLLM looks answers up and stores them by its own handlers; which cache, which key and which
bytes is decided here.
"""

# LiteLLM is typed with what can't be checked beside SDK 3, which this package is checked with.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUntypedBaseClass=false, reportUnknownParameterType=false

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import litellm
from litellm.caching.base_cache import BaseCache
from litellm.caching.caching import Cache

from asynccache import _portal
from asynccache._cache import AsyncCache
from asynccache._canonical import canonical_value
from asynccache._errors import NotCanonicalError, ReplayMiss
from asynccache.integrations._host import (
    Face,
    answered,
    cache_for,
    cache_of,
    cache_to_clear,
    from_thread,
    mode_of,
)

_PREFIX: Final = "asynccache.litellm/1"
_STATEFUL: Final = ("background", "conversation", "previous_response_id")
"""What reads or changes state at the server."""
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
    "cooldown_time", "fallbacks", "force_timeout", "max_retries", "num_retries",
    "request_timeout", "retry_policy", "retry_strategy", "stream_timeout", "timeout",
})  # fmt: skip
_DENIED_HEADERS: Final = frozenset(
    {"api-key", "authorization", "cookie", "proxy-authorization", "x-api-key"}
)
_ADDRESSES: Final = ("API_BASE", "API_VERSION", "BASE_URL", "ORGANIZATION", "PROJECT")
_UNKEYED: Final = "LiteLLM: a request that can't be a key, or that has state at the server"


class LiteLLMCache(Cache):  # type: ignore[misc]  # untyped here, see above
    """Answers of LiteLLM's calls, in an `AsyncCache`, for ``litellm.cache``.

    Everything in a request is in its key, but for `_DENIED`. The sync calls work in any thread, as
    those of `LangChainCache` do. LiteLLM makes its calls itself, so that what many ask for at once
    is not shared here.

    Args:
        cache: An `AsyncCache` or `SyncCache`; None takes the one in force around each call; where
            there is none, every lookup is a miss.
        namespace: Keeps answers apart, as ``cache={"namespace": ...}`` does for one call.
        ttl: Seconds until answers expire; None leaves the cache's own.
        options: Further options of LiteLLM's own cache: ``mode``, ``supported_call_types``.
            ``max_messages`` is None here, so that conversations of any length are cached.
    """

    def __init__(
        self,
        cache: AsyncCache | Face | None = None,
        *,
        namespace: str | None = None,
        ttl: float | None = None,
        **options: Any,  # noqa: ANN401 - LiteLLM's own
    ) -> None:
        super().__init__(namespace=namespace, ttl=ttl, **{"max_messages": None, **options})
        self.cache = _Backend(cache_of(cache))

    def get_cache_key(self, **kwargs: Any) -> str | None:  # noqa: ANN401 - a request's
        """Return the key of a request; None if it has none, and is not cached."""
        if any(kwargs.get(name) for name in _STATEFUL):
            return None
        try:
            return _request_key(kwargs, _namespace(kwargs, self.namespace))
        except NotCanonicalError:
            return None

    def should_use_cache(self, **kwargs: Any) -> bool:  # noqa: ANN401 - as above
        """Tell whether a request is looked up and stored."""
        if "cache_key" in kwargs and kwargs["cache_key"] is None:
            return False
        return bool(super().should_use_cache(**kwargs))

    def get_cache(self, dynamic_cache_object: object = None, **kwargs: Any) -> Any:  # noqa: ANN401 - as above
        """Return the stored answer of a sync call, or None."""
        key = self._lookup_key(kwargs)
        if key is None:
            return None
        found = self.cache.get_cache(key)
        return self.get_cache_logic(found, _max_age(kwargs))

    async def async_get_cache(self, dynamic_cache_object: object = None, **kwargs: Any) -> Any:  # noqa: ANN401 - as above
        """Return the stored answer of an async call, or None.

        Raises:
            ReplayMiss: In mode "replay", nothing is stored.
        """
        key = self._lookup_key(kwargs)
        if key is None:
            return None
        found = await self.cache.async_get_cache(key)
        return self.get_cache_logic(found, _max_age(kwargs))

    def _lookup_key(self, kwargs: dict[str, Any]) -> str | None:
        key = kwargs["cache_key"] if "cache_key" in kwargs else self.get_cache_key(**kwargs)
        if key is None:
            self.cache.note_unkeyed()
            return None
        return key if self.should_use_cache(**kwargs) else None

    def add_cache(self, result: object, **kwargs: Any) -> None:  # noqa: ANN401 - as above
        """Store the answer of a sync call."""
        if self._keyed(kwargs):
            super().add_cache(result, **kwargs)

    async def async_add_cache(
        self,
        result: object,
        dynamic_cache_object: object = None,
        **kwargs: Any,  # noqa: ANN401 - as above
    ) -> None:
        """Store the answer of an async call."""
        if self._keyed(kwargs):
            await super().async_add_cache(result, **kwargs)

    def _keyed(self, kwargs: dict[str, Any]) -> bool:
        """Put a request's key into it; tell whether there is one."""
        if kwargs.get("cache_key") is None:
            kwargs["cache_key"] = self.get_cache_key(**kwargs)
        return kwargs["cache_key"] is not None


class _Backend(BaseCache):  # type: ignore[misc]  # untyped here, see above
    """Where LiteLLM's cache keeps what it has made ready."""

    def __init__(self, cache: AsyncCache | None) -> None:
        super().__init__()
        self._cache = cache

    def note_unkeyed(self) -> None:
        """Count a request that has no key."""
        cache = cache_for(self._cache, reading=False)
        if cache is not None:
            _unanswered(cache)

    async def async_get_cache(self, key: str, **kwargs: object) -> dict[str, Any] | None:
        cache = cache_for(self._cache, reading=True)
        return None if cache is None else await _get(cache, key)

    def get_cache(self, key: str, **kwargs: object) -> dict[str, Any] | None:
        return from_thread(self._cache, None, _get, key, True, reading=True)

    async def async_set_cache(self, key: str, value: object, **kwargs: Any) -> None:  # noqa: ANN401 - LiteLLM's
        await self.async_set_cache_pipeline([(key, value)], **kwargs)

    async def async_set_cache_pipeline(
        self,
        cache_list: Sequence[tuple[str, object]],
        **kwargs: Any,  # noqa: ANN401 - as above
    ) -> None:
        cache = cache_for(self._cache, reading=False)
        if cache is not None:
            await _set(cache, cache_list, kwargs.get("ttl"))

    def set_cache(self, key: str, value: object, **kwargs: Any) -> None:  # noqa: ANN401 - as above
        from_thread(self._cache, None, _set, [(key, value)], kwargs.get("ttl"))

    async def batch_cache_write(self, key: str, value: object, **kwargs: Any) -> None:  # noqa: ANN401 - as above
        await self.async_set_cache(key, value, **kwargs)

    async def ping(self) -> bool:
        cache = cache_to_clear(self._cache)
        return cache is not None and cache.is_open

    async def delete_cache_keys(self, keys: Sequence[str]) -> None:
        cache = cache_to_clear(self._cache)
        if cache is not None:
            for key in keys:
                await cache.delete((_PREFIX, key))

    def flush_cache(self) -> None:
        cache = cache_to_clear(self._cache)
        if cache is not None:
            _portal.call(cache.clear)

    async def disconnect(self) -> None:
        """Leave the cache open: whoever opened it closes it."""


def _unanswered(cache: AsyncCache) -> None:
    """Count a request that goes past the cache.

    Raises:
        ReplayMiss: In mode "replay", where it may not.
    """
    cache.note_bypass(_UNKEYED)
    if mode_of(cache) == "replay":
        raise ReplayMiss(_UNKEYED)


async def _get(cache: AsyncCache, key: str, whole: bool = False) -> dict[str, Any] | None:  # noqa: FBT001, FBT002 - by position, through a thread
    found: object = await cache.get((_PREFIX, key))
    record: dict[str, Any] | None = None
    if isinstance(found, dict) and isinstance(found.get("timestamp"), float):
        response = found.get("response")
        if isinstance(response, str):
            try:
                response = json.loads(response)
            except ValueError:  # nothing that LiteLLM may make a guess at
                response = None
        # A single embedding, out of a list's, is no answer to a sync call.
        if isinstance(response, dict) and not (whole and "format_version" in response):
            record = {"timestamp": found["timestamp"], "response": response}
    answered(cache, hit=record is not None)
    return record


async def _set(cache: AsyncCache, items: Sequence[tuple[str, object]], ttl: float | None) -> None:
    await cache.set_many([((_PREFIX, key), value) for key, value in items], ttl=ttl)


def _max_age(kwargs: Mapping[str, Any]) -> float:
    control = kwargs.get("cache") or {}
    found = control.get("s-maxage", control.get("s-max-age"))
    return float("inf") if found is None else float(found)


def _namespace(kwargs: Mapping[str, Any], own: str | None) -> str | None:
    control = kwargs.get("cache") or {}
    metadata = kwargs.get("metadata") or {}
    found: str | None = control.get("namespace") or metadata.get("redis_namespace") or own
    return found


def _request_key(kwargs: Mapping[str, Any], namespace: str | None) -> str:
    """Return the digest of everything in a request that may change its answer.

    Raises:
        NotCanonicalError: Something in it has no canonical form.
    """
    request = {
        name: _plain(_less_secrets(value) if name in {"headers", "extra_headers"} else value)
        for name, value in kwargs.items()
        if name not in _DENIED and not name.startswith("_") and value is not None
    }
    around = (_addresses(kwargs), _of_client(kwargs.get("client")))
    canonical = canonical_value((_PREFIX, namespace, request, around))
    return hashlib.sha256(canonical).hexdigest()


def _addresses(kwargs: Mapping[str, Any]) -> dict[str, str]:
    """Return what LiteLLM takes from its module or the environment where a request is silent."""
    model = str(kwargs.get("model") or "")
    named: str = kwargs.get("custom_llm_provider") or (
        model.partition("/")[0] if "/" in model else "openai"
    )
    found = {
        f"{provider}_{name}": value
        for provider in sorted({named.upper(), "OPENAI"})
        for name in _ADDRESSES
        if (value := os.environ.get(f"{provider}_{name}"))
    }
    for name in ("api_base", "api_version", "drop_params", "modify_params", "organization"):
        if value := getattr(litellm, name, None):
            found[name] = str(value)
    for name, value in (getattr(litellm, "headers", None) or {}).items():
        if name.lower() not in _DENIED_HEADERS:
            found[f"header {name}"] = str(value)
    return found


def _of_client(client: object) -> object:
    """Return what a client of the caller's own adds to a request: where it goes, and as whom."""
    named = {
        name: str(value)
        for name in ("base_url", "organization", "project")
        if (value := getattr(client, name, None)) is not None
    }
    headers = _less_secrets(getattr(client, "_custom_headers", None))
    query = getattr(client, "_custom_query", None)
    return (named, headers or None, query or None)


def _less_secrets(headers: object) -> object:
    if not isinstance(headers, Mapping):
        return headers
    named = cast("Mapping[str, object]", headers)
    return {name: v for name, v in named.items() if name.lower() not in _DENIED_HEADERS}


def _plain(value: object) -> object:
    """Return a value whose JSON schema stands for a class of answers."""
    schema = getattr(value, "model_json_schema", None)
    return ("schema", schema()) if isinstance(value, type) and callable(schema) else value
