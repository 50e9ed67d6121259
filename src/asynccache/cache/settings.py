"""The options that every store's factory takes, checked and made into a cache's settings."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from difflib import get_close_matches
from functools import partial
from math import inf
from typing import Any, Final, Literal, TypedDict, cast

from msgspec import Struct

from asynccache.cache.events import Observer, SafeObserver
from asynccache.core.calls import StoreIf, store_good
from asynccache.core.context import Limits
from asynccache.core.modes import MODES, Mode
from asynccache.keys.key import Namespace
from asynccache.keys.normalizer import Normalization

_REMOTE_TIMEOUT: Final = 1.0  # seconds: longer than any healthy answer, shorter than a model's
_LOCAL_TIMEOUT: Final = 10.0  # seconds: a disk under load is slow, not gone
_LONGEST: Final = 1e11  # seconds, three thousand years: whatever is longer is as good as this


class Settings(Struct, frozen=True, kw_only=True):
    """The options of a cache, checked. See `Cache` for what each means."""

    namespace: Namespace
    mode: Mode = "read_write"
    ttl: float | None = None
    ttl_jitter: float = 0.0
    store_if: StoreIf = store_good
    ignore: tuple[tuple[str, ...], ...] = ()
    ignore_headers: frozenset[str] = frozenset()
    normalize: Normalization | None = None
    keep_requests: bool = False
    max_entry_bytes: int = 32 * 2**20  # 32 MiB
    on_store_error: str = "continue"
    store_timeout: float | None = None
    lease_ttl: float = 5.0
    observer: Observer | None = None
    event_paths: bool = False

    def timeout(self, *, remote: bool) -> float:
        """Return the seconds that a store may take: those asked for, or its kind's."""
        if self.store_timeout is not None:
            return self.store_timeout
        return _REMOTE_TIMEOUT if remote else _LOCAL_TIMEOUT

    def limits(self, *, remote: bool) -> Limits:
        """Return what the engines of a cache keep to, over a remote store or a local one."""
        return Limits(
            max_entry_bytes=self.max_entry_bytes,
            store_timeout=self.timeout(remote=remote),
            lease_ttl=self.lease_ttl,
            ttl_jitter=self.ttl_jitter,
        )


class CacheOptions(TypedDict, total=False):
    """What every store's factory takes beside its own arguments."""

    ttl: float | timedelta | None
    """Seconds or timedelta until an answer expires; None, the default, keeps it."""
    ttl_jitter: float
    """Share of the ttl, 0 (default) to 1, that chance takes away: not all expire at once."""
    mode: Mode
    """``"read_write"`` (default), ``"read_only"``, ``"refresh"``, ``"replay"`` or ``"off"``."""
    tenant: str | None
    """Separates further what one ``cache_seed`` holds: any text, such as a customer's id."""
    store_if: StoreIf
    """Whether to store an `Answer`, instead of `store_good`, the default. A call that ends in an
    error, as with status 400, has no answer to ask it about."""
    ignore: Iterable[str]
    """Body paths to leave out of keys, e.g. ``"metadata.run_id"``; ``*`` is every item."""
    ignore_headers: Iterable[str]
    """Headers to leave out of keys, beside credentials and traces, which never are in."""
    normalize: Callable[[dict[str, Any]], dict[str, Any]] | Iterable[Any]
    """A pure function from a copy of a body to what its key is made of, or several; for OpenAI's
    clients. `asynccache.normalizers` has ready ones, for dates, ids of tool calls and more."""
    keep_requests: bool
    """Store the request beside the answer; off, as prompts may be private."""
    max_entry_bytes: int
    """Larger answers are delivered but not stored; default 32 MiB."""
    on_store_error: Literal["continue", "raise"]
    """``"continue"`` (default): a failing store costs a counter; ``"raise"``: it raises."""
    store_timeout: float | None
    """Seconds that a store may take to answer; default 1 for remote stores, 10 for local ones."""
    lease_ttl: float
    """Seconds of silence after which another process takes a call over; default 5."""
    observer: Observer | None
    """A plain function that is told of each call, once it is over; see `asynccache.record`."""
    event_paths: bool
    """Give the events of misses a digest of each part of their requests; off by default."""


_PLACE: Final = re.compile(r"[/\\:~]|^\.|\.$")
"""What a name has no use for, and an address or a folder has."""
_MEANT: Final = {
    "cache_path_root": "path dir directory folder root location cache_dir cache_path base_path",
    "redis_url": "url uri address dsn redis_uri host hostname port db password username",
    "endpoint": "url uri address account_url account_uri host",
    "credential": "key account_key password",
    "container_id": "container container_name collection",
    "database_id": "database database_name db",
    "cache_seed": "seed name namespace prefix key_prefix",
    "client": "redis redis_client connection connection_pool cosmos_client",
    "max_bytes": "size_limit max_size maxsize size capacity max_memory maxmemory",
    "ttl": "expire expires expiry expiration max_age expire_after",
    "mode": "readonly read_only replay refresh",
    "tenant": "user user_id customer",
    "store_timeout": "timeout socket_timeout",
    "observer": "callback on_event hook",
}
"""What an option is called elsewhere."""


def refuse_others(
    unnamed: tuple[object, ...], unknown: Collection[str], known: Collection[str]
) -> None:
    """Refuse what a block of options doesn't take.

    Raises:
        TypeError: An option was given without its name, or there is none of a name.
    """
    if unnamed:
        mode = repr(unnamed[0]) if unnamed[0] in list(MODES) else "..."
        raise TypeError(f"options takes its options by name: write options(mode={mode})")
    if unknown:
        raise TypeError(f"options: {no_option(unknown, known)}")


def settings_of(
    factory: Callable[..., object], cache_seed: int | str, options: CacheOptions
) -> Settings:
    """Return the settings that options ask for.

    Args:
        factory: What they were given to, for messages.
        cache_seed: The name of the cache.
        options: The others.

    Raises:
        TypeError: There is no such option, or its value has the wrong type.
        ValueError: An option has no such value.
    """
    given: dict[str, Any] = {**options}
    own = [name for name in inspect.signature(factory).parameters if name != "options"]
    name = f"Cache.{factory.__name__}"
    if isinstance(cache_seed, os.PathLike) or _PLACE.search(str(cache_seed)):
        raise ValueError(_misplaced(name, own, str(cache_seed)))
    namespace = Namespace.of(cache_seed, given.pop("tenant", None))
    if unknown := sorted(given.keys() - _CHECKS.keys()):
        known = [*own, *sorted(CacheOptions.__annotations__)]
        raise TypeError(f"{name}: {no_option(unknown, known)}")
    checked = {name: _CHECKS[name](value) for name, value in given.items()}
    return Settings(namespace=namespace, **checked)


def _misplaced(name: str, own: list[str], place: str) -> str:
    """Return what is wrong with an address or a folder as a seed; an address holds passwords."""
    if "cache_path_root" in own and "://" not in place:
        how = f"for a folder write {name}(cache_path_root={place!r})"
    elif "redis_url" in own:
        how = f'for an address write {name}(redis_url="redis://host:6379/0")'
    else:
        how = "for a place written as a URL call Cache.from_url"
    return f"cache_seed is the name of a cache, such as 42 or 'tests', and no place; {how}"


def no_option(unknown: Iterable[str], known: Collection[str]) -> str:
    """Return what to say of options that aren't there: those that may be meant, and all."""
    said: list[str] = []
    for word in unknown:
        meant = [name for name, words in _MEANT.items() if word in words.split() and name in known]
        meant = (meant or get_close_matches(word, known))[:1]
        said.append(f"no option {word!r}" + "".join(f" (did you mean {one}?)" for one in meant))
    return f"{', '.join(said)}; it takes {', '.join(known)}"


def positive(option: str, number: Any) -> Any:  # noqa: ANN401 - int in, int out; float in, float out
    """Return a number that is above zero and finite."""
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise TypeError(f"{option} must be a number, not {type(number).__name__}")
    if not 0 < number < inf:
        raise ValueError(f"{option} must be above zero and finite, not {number}")
    return number


def seconds_of(ttl: float | timedelta | None, option: str = "ttl") -> float | None:
    """Return a ttl or another time in seconds, None for none.

    Raises:
        TypeError: It is neither a number nor a timedelta nor None.
        ValueError: It isn't above zero.
    """
    if ttl is None:
        return None
    seconds = positive(option, ttl.total_seconds() if isinstance(ttl, timedelta) else ttl)
    return float(min(seconds, _LONGEST))


def mode_of(mode: str) -> Mode:
    """Return a mode that was checked.

    Raises:
        ValueError: There is no such mode.
    """
    return cast("Mode", _one_of("mode", MODES, mode))


def rule_of(store_if: StoreIf) -> StoreIf:
    """Return a rule for storing that was checked.

    Raises:
        TypeError: It isn't a plain function.
    """
    return cast("StoreIf", _plain("store_if", "an Answer", store_if))


def _one_of(option: str, words: Collection[str], word: str) -> str:
    if word not in words:
        raise ValueError(f"{option} must be one of {', '.join(words)}, not {word!r}")
    return word


def _plain(option: str, argument: str, function: object) -> object:
    inner = function
    while isinstance(inner, partial):
        inner = inner.func
    for one in (inner, type(inner).__call__ if callable(inner) else None):
        if one is None or inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one):
            raise TypeError(f"{option} must be a plain function of {argument}")
    return function


def _observed(function: object) -> SafeObserver:
    return SafeObserver(cast("Observer", _plain("observer", "a CallEvent", function)))


def _share(share: float) -> float:
    if not 0 <= share <= 1:
        raise ValueError(f"ttl_jitter must be a share from 0 to 1, not {share}")
    return float(share)


def names_of(option: str, names: Iterable[str]) -> list[str]:
    """Return the names that an option takes; TypeError for a single one."""
    if isinstance(names, str):
        raise TypeError(f"{option} takes several names: [{names!r}]")
    return list(names)


def _path(path: str) -> tuple[str, ...]:
    parts = tuple(path.split("."))
    if not all(parts) or parts == ("*",):
        raise ValueError(f'ignore takes paths such as "metadata.run_id", not {path!r}')
    return parts


_CHECKS: Final[dict[str, Callable[[Any], Any]]] = {
    "ttl": seconds_of,
    "ttl_jitter": _share,
    "mode": mode_of,
    "store_if": rule_of,
    "ignore": lambda paths: tuple(map(_path, names_of("ignore", paths))),
    "ignore_headers": lambda names: frozenset(map(str.lower, names_of("ignore_headers", names))),
    "normalize": lambda given: Normalization(given) if given else None,
    "keep_requests": bool,
    "max_entry_bytes": partial(positive, "max_entry_bytes"),
    "on_store_error": partial(_one_of, "on_store_error", ("continue", "raise")),
    "store_timeout": partial(seconds_of, option="store_timeout"),
    "lease_ttl": lambda time: seconds_of(positive("lease_ttl", time)),
    "event_paths": bool,
    "observer": lambda function: None if function is None else _observed(function),
}
"""The options beside ``tenant``. Each check returns the setting, or raises."""
