"""URLs that name a store, its place and a cache's options, for `Cache.from_url`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from asynccache.cache.settings import no_option
from asynccache.errors import described
from asynccache.normalizers import Normalizer, call_ids, dates, schema_order, uuids

_CONNECTION_STRING: Final = "COSMOS_CONNECTION_STRING"
_URLS: Final = {
    "disk": "disk:",
    "memory": "memory:",
    "redis": "redis://localhost:6379/0",
    "rediss": "rediss://host:6379/0",
    "cosmos": "cosmos:",
}
"""A URL of each store, by the word that it begins with."""


def parsed(url: str) -> tuple[str, dict[str, Any]]:
    """Return the factory that a URL names, and the arguments for it.

    Raises:
        ValueError: There is no such scheme or option, or an option has no such value.
        TypeError: It isn't a str.
    """
    if not isinstance(url, str):
        raise TypeError(
            f"from_url takes a str such as 'disk:folder', not {described(url)}; for a folder there"
            " is Cache.disk(cache_path_root=...)"
        )
    parts = urlsplit(url)
    if parts.fragment:
        raise ValueError(f"write '#' as %23: this URL would lose {parts.fragment!r}")
    scheme = parts.scheme
    at_redis = scheme == "unix" or scheme.startswith("redis")
    at_cosmos = scheme in {"cosmos", "cosmos+http"}
    if scheme not in {"disk", "memory"} and not at_redis and not at_cosmos:
        raise ValueError(_unknown(url, parts))
    found, passed_on = _options(parts.query)
    known = sorted(_FROM_TEXT)
    # Redis knows best what is wrong with the rest.
    wrong = [name for name, _ in passed_on if not at_redis or get_close_matches(name, known)]
    if wrong:
        raise ValueError(f"this URL: {no_option(wrong, known)}")
    if at_redis:
        found["redis_url"] = parts._replace(query=urlencode(passed_on)).geturl()
        return "redis", found
    if at_cosmos:
        return "cosmos_db", {**found, **_cosmos(parts)}
    if place := unquote(f"{parts.netloc}{parts.path}"):
        if scheme != "disk":
            raise ValueError(f"{scheme}: takes no path, and got {place!r}")
        found["cache_path_root"] = place
    return scheme, found


def _unknown(url: str, parts: SplitResult) -> str:
    """Return what to say of a URL that names no store, without the passwords that it may hold."""
    if "AccountEndpoint=" in url:
        return "this is a connection string: call Cache.cosmos_db(connection_string=...)"
    known = "a URL begins with disk:, memory:, redis: or cosmos:"
    if parts.scheme in {"http", "https"}:
        return f"{known}; an account of Cosmos DB is cosmos://:key@host/database/container"
    if url in _URLS:
        return f"{known}; write {_URLS[url]!r}"
    if parts.scheme == "file":
        return f"{known}; for a folder write 'disk:{parts.path}'"
    if re.fullmatch(r"[\w.-]+:\d+(/\d+)?", url):
        return f"{known}; for Redis write 'redis://{url}'"
    if not parts.scheme or len(parts.scheme) == 1:  # of Windows: a drive
        return f"{known}; for a folder write 'disk:{url}'"
    near = "".join(f"; did you mean {one}:?" for one in get_close_matches(parts.scheme, _URLS, n=1))
    return f"no store is called {parts.scheme!r}; {known}{near}"


def _options(query: str) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return a query's options, and the rest of the query."""
    found: dict[str, Any] = {}
    unknown: list[tuple[str, str]] = []
    for name, text in parse_qsl(query, keep_blank_values=True):
        parse = _FROM_TEXT.get(name)
        if parse is None:
            unknown.append((name, text))
            continue
        try:
            found[name] = parse(text)
        except ValueError as exc:
            raise ValueError(f"option {name!r} can't be {text!r}: {exc}") from exc
    return found, unknown


def _cosmos(parts: SplitResult) -> dict[str, str]:
    names = [unquote(name) for name in parts.path.split("/") if name]
    if len(names) not in {0, 2}:
        raise ValueError(
            "a cosmos URL ends in both names or in none: cosmos://:key@host/database/container"
        )
    found = dict(zip(("database_id", "container_id"), names, strict=False))
    if parts.netloc:
        if not parts.password:
            raise ValueError(
                "a cosmos URL with a host has the key before it, with / + = as %2F %2B %3D:"
                " cosmos://:key@host; for a token credential call Cache.cosmos_db(endpoint=…,"
                " credential=…)"
            )
        scheme = "http" if parts.scheme == "cosmos+http" else "https"
        host = parts.netloc.rpartition("@")[2]
        return {**found, "endpoint": f"{scheme}://{host}", "credential": unquote(parts.password)}
    connection_string = os.environ.get(_CONNECTION_STRING)
    if not connection_string:
        raise ValueError(
            f"cosmos: without a host takes the connection string from {_CONNECTION_STRING},"
            " which isn't set"
        )
    return {**found, "connection_string": connection_string}


def _yes_or_no(text: str) -> bool:
    if text.lower() in {"1", "true", "yes"}:
        return True
    if text.lower() in {"0", "false", "no"}:
        return False
    raise ValueError("say true or false")


def _normalizers(text: str) -> list[Normalizer]:
    named = text.split(",")
    if not _READY.keys() >= set(named):
        raise ValueError(f"name some of {', '.join(_READY)}, with commas between them")
    return [_READY[name] for name in named]


_READY: Final = {one.name: one for one in (call_ids, dates, schema_order, uuids)}
_FROM_TEXT: Final[dict[str, Callable[[str], object]]] = {
    "cache_seed": lambda text: int(text) if text.lstrip("-").isdecimal() else text,
    **dict.fromkeys(("mode", "on_store_error", "tenant"), str),
    **dict.fromkeys(("create", "event_paths", "gitignore", "keep_requests"), _yes_or_no),
    "normalize": _normalizers,
    **dict.fromkeys(("lease_ttl", "local_ttl", "store_timeout", "ttl", "ttl_jitter"), float),
    **dict.fromkeys(("local_max_bytes", "max_bytes", "max_connections", "max_entry_bytes"), int),
}
"""What makes an option of its text."""
