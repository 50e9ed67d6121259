"""The cache as LiteLLM's: ``litellm.cache = LiteLLMCache()``.

LiteLLM looks answers up and stores them by its own handlers; which cache, which key and which
bytes is decided here.
"""

# LiteLLM is typed with what can't be checked beside SDK 3, which this package is checked with.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUntypedBaseClass=false, reportUnknownParameterType=false

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from litellm.caching.base_cache import BaseCache
from litellm.caching.caching import Cache
from litellm.types.caching import EMBEDDING_CACHE_FORMAT_VERSION
from msgspec.structs import replace

from asynccache.cache.facade import (
    AsyncCache,
    FrameworkCache,
    Options,
    SyncCache,
    current_options,
    under,
    values_of,
)
from asynccache.entries.values import decode_value
from asynccache.errors import NotCanonicalError
from asynccache.integrations.litellm.keys import PREFIX, request_key
from asynccache.integrations.litellm.lookups import Key, PendingLookups, is_by_input
from asynccache.runtime import background

_STATEFUL: Final = ("background", "conversation", "previous_response_id")
"""What reads or changes state at the server."""
_UNKEYED: Final = "LiteLLM: a request that can't be a key, or that has state at the server"


class LiteLLMCache(Cache):  # type: ignore[misc]  # untyped here, see above
    """Answers of LiteLLM's calls, in an `AsyncCache`, for ``litellm.cache``.

    Everything in a request is in its key, but for credentials, timeouts and what is LiteLLM's own.
    What wasn't looked up isn't stored. The sync calls work in any thread, as those of
    `LangChainCache` do. LiteLLM makes its calls itself, so that what many ask for at once is not
    shared here.

    Args:
        cache: An `AsyncCache` or `SyncCache`; None takes the one in force around each call; where
            there is none, every lookup is a miss.
        namespace: Keeps answers apart, as ``cache={"namespace": ...}`` does for one call.
        ttl: Seconds until answers expire; None leaves the cache's own.
        options: Further options of LiteLLM's own cache: ``mode``, ``supported_call_types``.
            ``max_messages`` is None here, so that conversations of any length are cached.

    Raises:
        TypeError: ``cache`` is no cache.
    """

    def __init__(
        self,
        cache: AsyncCache | SyncCache | None = None,
        *,
        namespace: str | None = None,
        ttl: float | None = None,
        **options: Any,  # noqa: ANN401 - LiteLLM's own
    ) -> None:
        self._framework = FrameworkCache(cache, "litellm")
        super().__init__(namespace=namespace, ttl=ttl, **{"max_messages": None, **options})
        self.cache = _Backend(self._framework)
        self._lookups = PendingLookups()

    def get_cache_key(self, **kwargs: Any) -> str | None:  # noqa: ANN401 - a request's
        """Return the key of a request; None if it has none, and is not cached."""
        part = kwargs.get("input")
        if isinstance(part, Key):  # what `async_add_cache_pipeline` passes for an input
            return part
        if kwargs.get("fallbacks") or any(kwargs.get(name) for name in _STATEFUL):
            return None
        try:
            text = request_key(kwargs, _namespace(kwargs, self.namespace))
        except NotCanonicalError:
            return None
        return self._looking_up(kwargs, f"{text}/input" if is_by_input(kwargs) else text)

    def _looking_up(self, kwargs: dict[str, Any], text: str) -> Key:
        """Return a lookup's key with what is in force around it: storing comes later, elsewhere."""
        options = current_options()
        number = options.sample
        if options.samples is not None and "litellm_logging_obj" in kwargs:  # a call's, no question
            number = options.samples.next(f"{options.cache_seed}:{text}".encode())
        options = replace(options, sample=0, samples=None, cache=self._framework.named())
        key = Key(f"{text}#{number}" if number else text, options)
        self._lookups.note(kwargs, key)
        return key

    def should_use_cache(self, **kwargs: Any) -> bool:  # noqa: ANN401 - as above
        """Tell whether a request is looked up and stored."""
        if "cache_key" in kwargs and kwargs["cache_key"] is None:
            return False
        return bool(super().should_use_cache(**kwargs))

    def get_cache(self, dynamic_cache_object: object = None, **kwargs: Any) -> Any:  # noqa: ANN401 - as above
        """Return the stored answer of a sync call, or None."""
        key = self._lookup_key(kwargs)
        return None if key is None else self._fresh(key, self.cache.get_cache(key), kwargs)

    async def async_get_cache(self, dynamic_cache_object: object = None, **kwargs: Any) -> Any:  # noqa: ANN401 - as above
        """Return the stored answer of an async call, or None.

        Raises:
            ReplayMiss: In mode "replay", nothing is stored.
        """
        key = self._lookup_key(kwargs)
        if key is None:
            return None
        return self._fresh(key, await self.cache.async_get_cache(key), kwargs)

    def _lookup_key(self, kwargs: dict[str, Any]) -> Key | None:
        key = kwargs["cache_key"] if "cache_key" in kwargs else self.get_cache_key(**kwargs)
        if key is None:
            if not kwargs.get("fallbacks"):  # LiteLLM asks here again for each that it tries
                self.cache.note_unkeyed()
            return None
        if not self.should_use_cache(**kwargs):
            return None
        return key if isinstance(key, Key) else self._looking_up(kwargs, key)

    def _fresh(self, key: Key, found: dict[str, Any] | None, kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - as above
        answer = self.get_cache_logic(found, _max_age(kwargs))
        key.found = answer is not None
        return answer

    def add_cache(self, result: object, **kwargs: Any) -> None:  # noqa: ANN401 - as above
        """Store the answer of a sync call."""
        key = self._looked_up(kwargs)
        if key is not None:
            super().add_cache(result, **{**kwargs, "cache_key": key})

    async def async_add_cache(
        self,
        result: object,
        dynamic_cache_object: object = None,
        **kwargs: Any,  # noqa: ANN401 - as above
    ) -> None:
        """Store the answer of an async call."""
        key = self._looked_up(kwargs)
        if key is not None:
            await super().async_add_cache(result, **{**kwargs, "cache_key": key})

    async def async_add_cache_pipeline(
        self,
        result: object,
        dynamic_cache_object: object = None,
        **kwargs: Any,  # noqa: ANN401 - as above
    ) -> None:
        """Store an embedding's vectors, each under the key that its input was looked up by."""
        keys = self._lookups.keys(kwargs, by_input=True)
        missed = [key for key in keys if not key.found]
        if missed:
            await super().async_add_cache_pipeline(result, **{**kwargs, "input": missed})

    def _looked_up(self, kwargs: dict[str, Any]) -> str | None:
        """Return the key that a call was looked up by; None where it wasn't."""
        keys = self._lookups.keys(kwargs)
        given: str | None = kwargs.get("cache_key")
        return keys[-1] if keys else given


class _Backend(BaseCache):  # type: ignore[misc]  # untyped here, see above
    """Where LiteLLM's cache keeps what it has made ready."""

    def __init__(self, framework: FrameworkCache) -> None:
        super().__init__()
        self._framework = framework

    def note_unkeyed(self) -> None:
        """Count a request that has no key.

        Raises:
            ReplayMiss: In mode "replay", where it may not go past the cache.
        """
        cache = self._framework.serving(reading=False)
        if cache is not None:
            self._framework.passed(cache, _UNKEYED)

    async def async_get_cache(self, key: str, **kwargs: object) -> dict[str, Any] | None:
        with under(_options(key)):
            cache = self._framework.serving(reading=True)
            return None if cache is None else await self._get(cache, key)

    def get_cache(self, key: str, **kwargs: object) -> dict[str, Any] | None:
        with under(_options(key)):
            cache = self._framework.serving_thread(reading=True)
            return None if cache is None else background.call(self._get, cache, key)

    async def _get(self, cache: AsyncCache, key: str) -> dict[str, Any] | None:
        entry = await values_of(cache).find((PREFIX, str(key)))
        found: object = None if entry is None else decode_value(entry.body, Any)
        record: dict[str, Any] | None = None
        if isinstance(found, dict) and isinstance(found.get("timestamp"), float):
            response = found.get("response")
            if isinstance(response, str):
                try:
                    response = json.loads(response)
                except ValueError:  # nothing that LiteLLM may make a guess at
                    response = None
            if isinstance(response, dict) and _is_readable(response):
                record = {"timestamp": found["timestamp"], "response": response}
        self._framework.answered(cache, (PREFIX, str(key)), None if record is None else entry)
        return record

    async def async_set_cache(self, key: str, value: object, **kwargs: Any) -> None:  # noqa: ANN401 - LiteLLM's
        await self.async_set_cache_pipeline([(key, value)], **kwargs)

    async def async_set_cache_pipeline(
        self,
        cache_list: Sequence[tuple[str, object]],
        **kwargs: Any,  # noqa: ANN401 - as above
    ) -> None:
        with under(_options(cache_list[0][0])):
            cache = self._framework.serving(reading=False)
            if cache is not None:
                await _set(cache, cache_list, kwargs.get("ttl"))

    def set_cache(self, key: str, value: object, **kwargs: Any) -> None:  # noqa: ANN401 - as above
        with under(_options(key)):
            cache = self._framework.serving_thread(reading=False)
            if cache is not None:
                background.call(_set, cache, [(key, value)], kwargs.get("ttl"))

    async def batch_cache_write(self, key: str, value: object, **kwargs: Any) -> None:  # noqa: ANN401 - as above
        await self.async_set_cache(key, value, **kwargs)

    async def ping(self) -> bool:
        cache = self._framework.named()
        return cache is not None and cache.is_open

    async def delete_cache_keys(self, keys: Sequence[str]) -> None:
        cache = self._framework.named()
        if cache is not None:
            for key in keys:
                await cache.delete((PREFIX, str(key)))

    def flush_cache(self) -> None:
        cache = self._framework.named()
        if cache is not None:
            background.call(cache.clear)

    async def disconnect(self) -> None:
        """Leave the cache open: whoever opened it closes it."""


def _options(key: str) -> Options:
    """Return what is in force for a key: what was so where it was looked up."""
    return key.options if isinstance(key, Key) else current_options()


def _is_readable(response: dict[str, Any]) -> bool:
    """Tell whether LiteLLM takes a stored answer; of one input's, only those of its own format."""
    version = response.get("format_version", EMBEDDING_CACHE_FORMAT_VERSION)
    return bool(version == EMBEDDING_CACHE_FORMAT_VERSION)


async def _set(cache: AsyncCache, items: Sequence[tuple[str, object]], ttl: float | None) -> None:
    if ttl is None or ttl > 0:  # else it has expired already
        await cache.set_many([((PREFIX, str(key)), value) for key, value in items], ttl=ttl)


def _max_age(kwargs: Mapping[str, Any]) -> float:
    control = kwargs.get("cache") or {}
    found = control.get("s-maxage", control.get("s-max-age"))
    return float("inf") if found is None else float(found)


def _namespace(kwargs: Mapping[str, Any], own: str | None) -> str | None:
    control = kwargs.get("cache") or {}
    metadata = kwargs.get("metadata") or {}
    found: str | None = control.get("namespace") or metadata.get("redis_namespace") or own
    return found
