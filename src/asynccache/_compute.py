"""Making a value once, however many ask: the work of `get_or_create` and `memoize`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET, ValidationError

from asynccache import _context, _events
from asynccache._call import Answer, Call, Fetched, Mode
from asynccache._entry import Meta
from asynccache._errors import NotCanonicalError, ReplayMiss
from asynccache._flight import Caller, Flight, Scope
from asynccache._key import Namespace, value_key
from asynccache._portal import CallerGoneError
from asynccache._values import CONTENT_TYPE, decode_value, encode_value

if TYPE_CHECKING:
    from asynccache._cache import AsyncCache

_ANYBODY: Final = Caller()
VALUE_META: Final = Meta("value", content_type=CONTENT_TYPE)


async def compute(
    cache: AsyncCache,
    purpose: str,
    key: object,
    create: Callable[[], Awaitable[Any]],
    *,
    ttl: float | None,
    type: Any,  # noqa: ANN401 - any type form
) -> Any:  # noqa: ANN401 - of that type
    """Return the value stored under a key, or make it; keys of two purposes never meet."""
    watch = _events.watch(cache.settings.observer, purpose)
    try:
        value, told = await computed(cache, purpose, key, create, ttl=ttl, type=type)
    except BaseException as exc:
        if watch is not None:
            watch.failed(exc)
        raise
    if watch is not None:
        if isinstance(told, Fetched):
            watch.served(told.outcome, told.entry, cache.now())
        else:
            watch.passed(told)
    return value


async def computed(
    cache: AsyncCache,
    purpose: str,
    key: object,
    create: Callable[[], Awaitable[Any]],
    *,
    ttl: float | None,
    type: Any,  # noqa: ANN401 - any type form
) -> tuple[Any, Fetched | str | None]:
    """Do as `compute` does, telling nobody; return also where the value came from.

    That is why it went past the cache, if it did.
    """
    options = _context.current_options()
    mode = cache.settings.mode if options.mode is UNSET else options.mode
    if mode == "off" or (not cache.is_open and mode != "replay"):
        reason = "the cache isn't open" if mode != "off" else None
        cache.note_bypass(reason)
        return await create(), reason
    engine = cache.engine()
    if engine.pacer.spent():
        await engine.pacer.slot()
    namespace = options.namespace(cache.settings.namespace)
    try:
        digest = _key(options, namespace, purpose, key)
    except NotCanonicalError as exc:
        if mode == "replay":
            raise ReplayMiss(f"this call can't be cached: {exc}") from exc
        cache.note_bypass(str(exc))
        return await create(), str(exc)
    entry = engine.inline(mode, namespace, digest)
    if entry is not None:
        try:
            value = decode_value(entry.body, type)
        except ValidationError:  # stored when its type was another
            if mode != "read_write":
                raise
            engine.counters.flaws["mistyped"] += 1
            mode = "refresh"
        else:
            engine.count_hit(entry)
            return value, Fetched(entry, "hit")
    flight = engine.join(mode, digest)
    fetched = None if flight is None else await engine.ride(flight, _ANYBODY)
    if fetched is None:
        fetched = await engine.fetch(_call(cache, mode, namespace, digest, create, ttl=ttl))
    return decode_value(fetched.entry.body, type), fetched


def _key(options: _context.Options, namespace: Namespace, purpose: str, key: object) -> bytes:
    digest = value_key(namespace, purpose, key)
    sample = options.sample if options.samples is None else options.samples.next(digest)
    return value_key(namespace, purpose, key, sample) if sample else digest


def _call(
    cache: AsyncCache,
    mode: Mode,
    namespace: Namespace,
    key: bytes,
    create: Callable[[], Awaitable[Any]],
    *,
    ttl: float | None,
) -> Call:
    async def upstream(flight: Flight) -> Answer:
        flight.add(encode_value(await create()))
        return Answer(meta=VALUE_META, chunks=tuple(flight.chunks))

    return Call(
        namespace=namespace,
        key=key,
        mode=mode,
        upstream=upstream,
        scope=_scope,
        ttl=cache.ttl_in_force(ttl),
        store_if=cache.rule_in_force(),
    )


def _scope(error: BaseException) -> Scope:
    """Share a function's error with all, but not that its thread was interrupted."""
    return "own" if isinstance(error, CallerGoneError) else "all"
