"""URLs that name a store, its place and a cache's options, for `Cache.from_url`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from asynccache.normalizers import Normalizer, call_ids, dates, schema_order, uuids

_CONNECTION_STRING: Final = "COSMOS_CONNECTION_STRING"


def parsed(url: str) -> tuple[str, dict[str, Any]]:
    """Return the factory that a URL names, and the arguments for it.

    Raises:
        ValueError: There is no such scheme or option, or an option has no such value.
    """
    parts = urlsplit(url)
    if parts.fragment:
        raise ValueError(f"write '#' as %23: this URL would lose {parts.fragment!r}")
    scheme = parts.scheme
    at_redis = scheme == "unix" or scheme.startswith("redis")
    at_cosmos = scheme in {"cosmos", "cosmos+http"}
    if scheme not in {"disk", "memory"} and not at_redis and not at_cosmos:
        raise ValueError(
            f"no store is called {scheme!r}; there are disk:, memory:, redis: and cosmos:"
        )
    found, passed_on = _options(parts.query)
    if passed_on and not at_redis:
        known = ", ".join(sorted(_FROM_TEXT))
        raise ValueError(f"no option {passed_on[0][0]!r}; a URL takes {known}")
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
    **dict.fromkeys(("create", "gitignore", "keep_requests"), _yes_or_no),
    "normalize": _normalizers,
    **dict.fromkeys(("lease_ttl", "local_ttl", "store_timeout", "ttl", "ttl_jitter"), float),
    **dict.fromkeys(("local_max_bytes", "max_bytes", "max_connections", "max_entry_bytes"), int),
}
"""What makes an option of its text."""
