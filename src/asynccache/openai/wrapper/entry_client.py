"""One entry of a wrapper's list in one event loop: its clients, and which cache a call goes to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, cast

from msgspec import UNSET, UnsetType
from openai import AsyncOpenAI
from openai.types import Completion
from openai.types.chat import ChatCompletion

from asynccache.cache import in_force, scopes
from asynccache.cache.cache import AsyncCache
from asynccache.core.calls import Answer, StoreIf, status_of, store_good
from asynccache.errors import ReplayMiss
from asynccache.openai.client.replay import lenient
from asynccache.openai.wrapper.config import ConfigEntry, WrapperSettings
from asynccache.openai.wrapper.loop import LoopState
from asynccache.openai.wrapper.text import prepared
from asynccache.openai.wrapper.usage import Usage, UsageTotals

_DEFAULT_SEED: Final = 41  # AutoGen's, of a wrapper that nobody gave a cache
_CACHES: Final = 8  # that one client is wrapped for at a time: more than a program has at once


class _Methods:
    """The two methods of one client that a call may go to."""

    __slots__ = ("chat", "completion")

    def __init__(self, client: AsyncOpenAI) -> None:
        self.chat: Any = client.chat.completions.create
        self.completion: Any = client.completions.create


class EntryClient:
    """One entry of the list in one event loop.

    Args:
        plan: The entry.
        client: Its client, bare.
    """

    __slots__ = ("_bare", "_cached", "_handed", "_plain", "client", "plan")

    def __init__(self, plan: ConfigEntry, client: AsyncOpenAI) -> None:
        self.plan = plan
        self.client = client
        self._plain = not (plan.azure or plan.settings.context or plan.settings.filter_func)
        self._handed: WrapperSettings | None = None  # as they were when a call last named a cache
        self._bare = _Methods(client)
        self._cached: dict[AsyncCache, _Methods] = {}

    def asked(
        self, config: Mapping[str, Any], extras: Mapping[str, Any] | None
    ) -> tuple[WrapperSettings, dict[str, Any]]:
        """Return what holds for a call, and what it sends.

        Args:
            config: The call's parameters.
            extras: The wrapper's words in the call, None if there are none.
        """
        plan = self.plan
        settings = plan.settings
        params = {**plan.create, **config}
        plain = self._plain
        if extras is not None:
            # As AutoGen's agents call: a cache, nothing else, and the same one each time.
            plain = plain and len(extras) == 1 and "cache" in extras
            handed = self._handed
            if plain and handed is not None and handed.cache is extras["cache"]:
                settings = handed
            else:
                settings = settings.under(extras, of_call=True)
                if plain:
                    self._handed = settings
        if plain and "prompt" not in params and params.get("messages") is not None:
            return settings, params
        return settings, prepared(plan, settings, params)

    def method(self, cache: AsyncCache | None, *, chat: bool) -> Any:
        """Return the SDK's method, through a cache or past all of them."""
        methods = self._bare if cache is None else self._cached.get(cache) or self._wrapped(cache)
        return methods.chat if chat else methods.completion

    def _wrapped(self, cache: AsyncCache) -> _Methods:
        if len(self._cached) >= _CACHES:  # they would be kept alive by this wrapper
            for old in [old for old in self._cached if not old.is_open] or list(self._cached)[:1]:
                del self._cached[old]
        methods = self._cached[cache] = _Methods(cache.wrap(self.client))
        return methods


class Bound:
    """A wrapper in one event loop, whose clients and connections belong to that loop."""

    __slots__ = ("_made", "_state", "loop", "seats", "usage")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        state: LoopState,
        seats: list[EntryClient],
        usage: Usage,
    ) -> None:
        self.loop = loop
        self.seats = seats
        self.usage = usage
        self._state = state
        self._made = [seat.client for seat in seats if seat.plan.owned]
        for client in self._made:
            state.keep(client)

    async def implicit_cache(
        self, settings: WrapperSettings, options: in_force.Options
    ) -> AsyncCache | None:
        """Return the cache of a wrapper that nobody gave one; None if it can't be.

        Raises:
            ReplayMiss: It can't be, and nothing may go upstream.
        """
        seed, root = settings.cache_seed, settings.cache_path_root
        if seed is UNSET or seed is None:
            seed = _DEFAULT_SEED
        cache = self._state.cache(seed, root) or await self._state.open_cache(seed, root)
        if cache is None and options.mode == "replay":
            raise ReplayMiss(f"nothing can be replayed from {root}: it can't be used as a cache")
        return cache

    async def aclose(self) -> None:
        """Close the clients that the wrapper has made."""
        for client in self._made:
            await self._state.close_client(client)


def cache_meant(
    settings: WrapperSettings, options: in_force.Options
) -> AsyncCache | UnsetType | None:
    """Return the cache to use, None for none; unset where only the implicit one is left."""
    cache = settings.cache
    unnamed = options.cache is UNSET
    if cache is not None:
        if unnamed or settings.cache_of_call:
            return cache
        # As in any client that has a cache of its own.
        return cast("AsyncCache | None", options.cache)
    if settings.cache_seed is None:
        return None
    cache = scopes.current_cache()
    return UNSET if cache is None and unnamed and options.mode != "off" else cache


async def inside(
    create: Any,
    params: dict[str, Any],
    cache: AsyncCache | None,
    settings: WrapperSettings,
    options: in_force.Options,
    *,
    judge: FilterRule | None,
) -> Any:
    """Make a call under the cache, the seed and the rule that are meant, where others may hold."""
    if cache is None:
        return await create(**params)
    seed = _seed_to_set(cache, settings, options)
    same = options.cache is UNSET or options.cache is cache
    if seed is UNSET and judge is None and same:
        return await create(**params)
    rule = UNSET if judge is None else judge
    with scopes.options(cache=cache, cache_seed=seed, store_if=rule):
        return await create(**params)


def judge_of(
    cache: AsyncCache | None, settings: WrapperSettings, *, chat: bool
) -> FilterRule | None:
    """Return who judges a call's answer, None if nobody does."""
    if settings.filter_func is None:
        return None
    return FilterRule(settings, store_good if cache is None else cache.rule_in_force(), chat=chat)


def _seed_to_set(
    cache: AsyncCache, settings: WrapperSettings, options: in_force.Options
) -> int | str | UnsetType:
    seed = settings.cache_seed
    block_seed = options.cache_seed
    if seed is UNSET or seed is None or (block_seed is not UNSET and not settings.seed_of_call):
        return UNSET
    if block_seed is UNSET:
        block_seed = cache.settings.namespace.seed
    return UNSET if str(seed) == str(block_seed) else seed


class FilterRule:
    """A call's filter, asked before its answer is stored: a rejected one never is.

    What was stored before, or what somebody else has asked for, is theirs to judge: such an answer
    is asked about when it has come, and stays.

    Args:
        settings: Hold the filter and its context.
        rule: What else decides whether an answer is stored.
        chat: Whether the answer is a chat completion.
    """

    __slots__ = ("_kind", "_passed", "_rule", "_settings")

    def __init__(self, settings: WrapperSettings, rule: StoreIf, *, chat: bool) -> None:
        self._settings = settings
        self._rule = rule
        self._kind: Any = ChatCompletion if chat else Completion
        self._passed: bool | None = None

    def __call__(self, answer: Answer) -> bool:
        """Tell whether to store an answer that this very call has paid for."""
        if not self._rule(answer):
            return False
        self._passed = self._asked(lenient(self._kind, answer.body))
        return self._passed

    def passes(self, response: Any) -> bool:
        """Tell whether a response is good."""
        status = status_of(response)
        if self._passed is None or status is None or status.outcome != "miss":
            return self._asked(response)
        return self._passed  # it was looked at already

    def _asked(self, response: Any) -> bool:
        settings = self._settings
        beside: dict[str, object] | None = getattr(response, "__dict__", None)
        if beside is not None:  # a filter may judge by the cost, as in AutoGen
            beside["cost"] = UsageTotals().add(response, settings.price)
        judge = settings.filter_func
        return judge is None or bool(judge(context=settings.context, response=response))
