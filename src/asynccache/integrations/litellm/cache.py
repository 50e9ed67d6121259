"""The cache as LiteLLM's: ``litellm.cache = LiteLLMCache()``.

LiteLLM's own handlers look answers up and store them. This module decides in which cache, under
which key and as which bytes.
"""

# LiteLLM is typed with what can't be checked beside SDK 3, which this package is checked with.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUntypedBaseClass=false, reportUnknownParameterType=false

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from litellm.caching.base_cache import BaseCache
from litellm.caching.caching import Cache
from litellm.types.caching import EMBEDDING_CACHE_FORMAT_VERSION
from msgspec.structs import replace

from asynccache.cache.facade import (
    AsyncCache,
    FrameworkCache,
    Judging,
    Options,
    SyncCache,
    current_options,
    under,
    values_of,
)
from asynccache.entries.values import decode_value, encode_value
from asynccache.errors import NotCanonicalError
from asynccache.integrations.litellm.keys import PREFIX, request_key
from asynccache.integrations.litellm.lookups import Key, PendingLookups, is_by_input
from asynccache.providers.chat import judge_chat
from asynccache.providers.judging import Judge
from asynccache.providers.responses import judge_response
from asynccache.runtime import background

_STATEFUL: Final = ("background", "conversation", "previous_response_id")
"""What reads or changes state at the server."""
_UNKEYED: Final = "LiteLLM: a request that can't be a key, or that has state at the server"


class LiteLLMCache(Cache):  # type: ignore[misc]  # untyped here, see above
    """A cache for ``litellm.cache`` that keeps LiteLLM's answers in an `AsyncCache`.

    The key holds the whole request except credentials, timeouts and LiteLLM's own arguments. An
    answer is stored only if it was looked up before. The sync methods work in any thread, as those
    of `LangChainCache` do. LiteLLM itself makes the calls, so equal calls at the same time are not
    shared.

    Args:
        cache: An `AsyncCache` or `SyncCache`. None means the cache in force around each call. If
            there is none, every lookup is a miss.
        namespace: Keeps answers apart, as ``cache={"namespace": ...}`` does for one call.
        ttl: Seconds until answers expire. None means the ``ttl`` of the cache.
        options: Further options of LiteLLM's own cache, such as ``mode`` and
            ``supported_call_types``. ``max_messages`` is None here, so that conversations of any
            length are cached.

    Raises:
        TypeError: ``cache`` is not a cache.
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
        """Return the key of a request, or None if the request can't be cached."""
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
        """Return the key of a lookup with the options in force, which storing needs later."""
        options = current_options()
        number = options.sample
        if options.samples is not None and "litellm_logging_obj" in kwargs:  # a call's, no question
            place = (options.cache_seed, options.tenant, text)
            number = options.samples.next(repr(place).encode())
        options = replace(options, sample=0, samples=None, cache=self._framework.named())
        key = Key(f"{text}#{number}" if number else text, options)
        self._lookups.note(kwargs, key)
        return key

    def should_use_cache(self, **kwargs: Any) -> bool:  # noqa: ANN401 - as above
        """Return whether a request is looked up and stored."""
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
            ReplayMiss: The mode is "replay" and nothing is stored.
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

    def add_cache(self, result: object, **kwargs: object) -> None:
        """Store the answer of a sync call."""
        key = self._looked_up(kwargs)
        if key is not None:
            super().add_cache(result, **{**kwargs, "cache_key": key})

    async def async_add_cache(
        self, result: object, dynamic_cache_object: object = None, **kwargs: object
    ) -> None:
        """Store the answer of an async call."""
        key = self._looked_up(kwargs)
        if key is not None:
            await super().async_add_cache(result, **{**kwargs, "cache_key": key})

    async def async_add_cache_pipeline(
        self, result: object, dynamic_cache_object: object = None, **kwargs: object
    ) -> None:
        """Store the vectors of an embedding, each under the key that its input was looked up by."""
        keys = self._lookups.keys(kwargs, by_input=True)
        missed = [key for key in keys if not key.found]
        if missed:
            await super().async_add_cache_pipeline(result, **{**kwargs, "input": missed})

    def _looked_up(self, kwargs: dict[str, Any]) -> str | None:
        """Return the key by which a call was looked up, or None if it wasn't."""
        keys = self._lookups.keys(kwargs)
        given: str | None = kwargs.get("cache_key")
        key = keys[-1] if keys else given
        if isinstance(key, Key):
            key.judge = _judge(kwargs)
        return key


class _Backend(BaseCache):  # type: ignore[misc]  # untyped here, see above
    """What LiteLLM's cache calls to read and write."""

    def __init__(self, framework: FrameworkCache) -> None:
        super().__init__()
        self._framework = framework

    def note_unkeyed(self) -> None:
        """Count a request that has no key.

        Raises:
            ReplayMiss: The mode is "replay", in which no call may bypass the cache.
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
        record = None if entry is None else _record(decode_value(entry.body, Any))
        self._framework.answered(cache, (PREFIX, str(key)), None if record is None else entry)
        return record

    async def _set(
        self, cache: AsyncCache, items: Sequence[tuple[str, object]], ttl: float | None
    ) -> None:
        if ttl is None or ttl > 0:  # else it has expired already
            # As it will be read: LiteLLM doesn't care whether a tuple is a list then.
            kept = [((PREFIX, str(key)), decode_value(encode_value(value))) for key, value in items]
            judging = _judging(*items[0]) if len(items) == 1 else None
            await self._framework.store(cache, kept, ttl=ttl, judging=judging)

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
                await self._set(cache, cache_list, kwargs.get("ttl"))

    def set_cache(self, key: str, value: object, **kwargs: Any) -> None:  # noqa: ANN401 - as above
        with under(_options(key)):
            cache = self._framework.serving_thread(reading=False)
            if cache is not None:
                background.call(self._set, cache, [(key, value)], kwargs.get("ttl"))

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
    """Return the options that were in force when a key was looked up."""
    return key.options if isinstance(key, Key) else current_options()


def _record(found: object) -> dict[str, Any] | None:
    """Return a stored answer and its time as LiteLLM takes them, or None if it can't read them."""
    if not isinstance(found, dict) or not isinstance(found.get("timestamp"), float):
        return None
    response = found.get("response")
    if isinstance(response, str):
        with suppress(ValueError):  # text that isn't JSON is nothing that LiteLLM may guess at
            response = json.loads(response)
    if not isinstance(response, dict):
        return None
    # An answer for one input of an embedding says which format it has.
    version = response.get("format_version", EMBEDDING_CACHE_FORMAT_VERSION)
    readable = version == EMBEDDING_CACHE_FORMAT_VERSION
    return {"timestamp": found["timestamp"], "response": response} if readable else None


def _judge(kwargs: Mapping[str, Any]) -> Judge | None:
    """Return what tells whether the answer to a call is usable."""
    shape = kwargs.get("response_format")
    if isinstance(shape, type):  # which schema is made of it depends on the provider
        shape = {"type": "json_object"}
    if kwargs.get("messages") is not None:
        return judge_chat({**kwargs, "response_format": shape})
    return judge_response(kwargs)


def _judging(key: str, value: object) -> Judging | None:
    judge = key.judge if isinstance(key, Key) else None
    response = value.get("response") if isinstance(value, dict) else None
    if judge is None or not isinstance(response, str):
        return None
    return judge.work([response.encode()], streamed=False)


def _max_age(kwargs: Mapping[str, Any]) -> float:
    control = kwargs.get("cache") or {}
    found = control.get("s-maxage", control.get("s-max-age"))
    return float("inf") if found is None else float(found)


def _namespace(kwargs: Mapping[str, Any], own: str | None) -> str | None:
    control = kwargs.get("cache") or {}
    metadata = kwargs.get("metadata") or {}
    found: str | None = control.get("namespace") or metadata.get("redis_namespace") or own
    return found
