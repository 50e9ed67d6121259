"""One call to a cached client of AutoGen's: from its arguments to its key, and to what answers."""

# AutoGen isn't there where this is checked, and what it gives is then unknown.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from autogen_core import Image
from autogen_core.models import CreateResult
from msgspec import UNSET, Struct

from asynccache.cache import events, in_force
from asynccache.cache.cache import AsyncCache
from asynccache.cache.events import CallWatch
from asynccache.core.calls import Answer, CallRequest, Fetched, Mode, Status
from asynccache.core.counters import Outcome
from asynccache.core.engine import Engine
from asynccache.core.flight import Caller, Flight
from asynccache.entries.entry import Entry
from asynccache.errors import NotCanonicalError, ReplayMiss
from asynccache.integrations.autogen.calls import built, copied, scope_of
from asynccache.integrations.autogen.identity import (
    Identified,
    Identity,
    UnknownClientError,
    request_of,
)
from asynccache.keys.canonical import canonical_json, without_paths
from asynccache.keys.key import Namespace, Prefix

Upstream = Callable[[Flight], Awaitable[Answer]]
"""Makes a call of the wrapped client's, for a flight."""


class Past(Struct, frozen=True):
    """A call goes past the cache."""

    arguments: Mapping[str, Any]
    reason: str | None
    watch: CallWatch | None


class Found(Struct, frozen=True):
    """A stored answer, and the result at its end."""

    entry: Entry
    result: CreateResult


class AutoGenLookup(Struct, frozen=True):
    """What a call asks for: which key, of which cache."""

    cache: AsyncCache
    engine: Engine
    mode: Mode
    namespace: Namespace
    key: bytes
    prefix: Prefix
    canonical: bytes
    arguments: Mapping[str, Any]
    """Those that the key was made of: the caller's own, or copies."""
    caller: Caller
    watch: CallWatch | None

    def served(self, fetched: Fetched) -> None:
        """Tell whoever watches of an answer."""
        if self.watch is not None:
            self.watch.served(fetched.outcome, fetched.entry, self.cache.now())

    def failed(self, error: BaseException) -> None:
        """Tell whoever watches of a call that raised."""
        if self.watch is not None:
            self.watch.failed(error)

    def call(self, upstream: Upstream, mode: Mode) -> CallRequest:
        """Return the kernel's call for it."""
        return CallRequest(
            namespace=self.namespace,
            key=self.key,
            mode=mode,
            upstream=upstream,
            scope=scope_of,
            caller=self.caller,
            ttl=self.cache.ttl_in_force(None),
            store_if=self.cache.rule_in_force(),
            canonical=self.canonical,
            facts=self.prefix.digests,
            keep_request=self.cache.settings.keep_requests,
        )

    def found(self) -> tuple[Found | None, Mode]:
        """Return an answer that is at hand, and the mode to go on with where there is none."""
        entry = self.engine.inline(self.mode, self.namespace, self.key)
        if entry is None:
            return None, self.mode
        found = self.readable(entry)
        return found, self.mode if found is not None else "refresh"

    def readable(self, entry: Entry) -> Found | None:
        """Return a stored answer; None for one of another AutoGen: it is to be asked for anew.

        Raises:
            ValueError: The mode allows no asking.
        """
        result = built(entry)
        if result is not None:
            return Found(entry, result)
        if self.mode != "read_write":
            raise ValueError("the stored answer is of another version of autogen-core")
        self.engine.counters.flaws["mistyped"] += 1
        return None

    def finished(self, result: CreateResult, entry: Entry, how: Outcome) -> CreateResult:
        """Mark an answer that is on its way to its caller: ``cached`` is for hits alone."""
        if how == "hit":
            result.cached = True
        now = self.cache.now()
        status = Status(how, self.key, entry.created, now, self.namespace)
        object.__setattr__(result, "_asynccache_status", status)
        return result


async def ask(
    client: Identified,
    *,
    stranger: bytes,
    cache: AsyncCache | None,
    path: str,
    arguments: Mapping[str, Any],
) -> AutoGenLookup | Past:
    """Return what a call asks for, or why it goes past the cache.

    Args:
        client: The client to ask.
        stranger: Stands for its credentials, where nobody knows them.
        cache: The cache in force.
        path: Which of its methods is called.
        arguments: With which arguments.

    Raises:
        ReplayMiss: In mode "replay", the call has no key.
        CacheClosedError: In mode "replay", the cache isn't open.
    """
    if cache is None:
        return Past(arguments, None, None)
    options, settings = in_force.current_options(), cache.settings
    mode = settings.mode if options.mode is UNSET else options.mode
    if mode == "off" or not (cache.is_open or mode == "replay"):
        return _past(cache, path, arguments, None if mode == "off" else "the cache isn't open")
    engine = cache.engine()
    # Callers share lists that grow while they wait: what is waited for here begins with a copy.
    if engine.pacer.spent():
        arguments = copied(arguments)
        await engine.pacer.slot()
    try:
        identity = client.now()
        if _holds_image(arguments["messages"]):
            arguments = copied(arguments)
            request = await asyncio.to_thread(request_of, arguments)
        else:
            request = request_of(arguments)
        canonical = canonical_json(without_paths(request, settings.ignore))
    except Exception as exc:  # of other people's objects, which may raise anything
        why = _why(exc)
        if mode == "replay":
            raise ReplayMiss(f"this call can't be replayed: {why}") from exc
        return _past(cache, path, arguments, f"{path}: {why}")
    namespace = options.namespace(settings.namespace)
    prefix = _prefix(namespace, identity.text, path)
    key = prefix.key(canonical)
    if options.samples is not None or options.sample:
        sample = options.sample if options.samples is None else options.samples.next(key)
        key = prefix.key(canonical, sample)
    caller = Caller(identity.credentials or stranger)
    watch = events.watch(settings.observer, path, _model_of(identity), key)
    return AutoGenLookup(
        cache, engine, mode, namespace, key, prefix, canonical, arguments, caller, watch
    )


@functools.lru_cache(maxsize=256)
def _prefix(namespace: Namespace, server: str, path: str) -> Prefix:
    return Prefix(namespace, method="AUTOGEN", upstream=server, path=path)


def _past(cache: AsyncCache, path: str, arguments: Mapping[str, Any], reason: str | None) -> Past:
    cache.note_bypass(reason)
    return Past(arguments, reason, events.watch(cache.settings.observer, path))


def _why(error: Exception) -> str:
    """Return why a call has no key. Of errors of others not their texts, which may hold secrets."""
    if isinstance(error, NotCanonicalError | UnknownClientError):
        return str(error)
    if isinstance(error, RecursionError):
        return "an argument is nested too deeply, or within itself"
    return f"no key can be made of its arguments ({type(error).__qualname__})"


@contextmanager
def telling(past: Past) -> Generator[None]:
    """Tell whoever watches of a call that goes past the cache."""
    try:
        yield
    except BaseException as exc:
        if past.watch is not None:
            past.watch.failed(exc)
        raise
    if past.watch is not None:
        past.watch.passed(past.reason)


def _model_of(identity: Identity) -> object:
    for part in ("create", "arguments", "config"):
        found = identity.facts.get(part, {}).get("model")
        if found is not None:
            return found
    return ""


def _holds_image(messages: Sequence[Any]) -> bool:
    """Tell whether messages hold pixels, whose digests take longer than the loop can wait."""
    return any(
        isinstance(part, Image)
        for message in messages
        if isinstance(content := getattr(message, "content", None), list)
        for part in content
    )
