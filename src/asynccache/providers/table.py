"""All providers that are known, those that the user has registered first."""

from __future__ import annotations

import functools
import importlib
import itertools
import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, quote, urlsplit

from msgspec import Struct
from msgspec.structs import replace

from asynccache.errors import described
from asynccache.providers import anthropic, cohere, gemini, ollama, openai, vertex
from asynccache.providers.provider import Operation, Provider
from asynccache.providers.wire import DEFAULT_PORTS, RequestPath, place_of, plain_path

_KNOWN: Final = (
    *openai.PROVIDERS, anthropic.PROVIDER, gemini.PROVIDER, vertex.PROVIDER, cohere.PROVIDER,
    ollama.PROVIDER, openai.LAST,
)  # fmt: skip


class _Table(Struct, frozen=True, eq=False):
    registered: tuple[Provider, ...] = ()
    providers: tuple[Provider, ...] = _KNOWN
    markers: tuple[str, ...] = tuple({name: 0 for known in _KNOWN for name, _ in known.markers})
    """The names of all headers that mark anybody's requests."""
    version: int = 0


_table = _Table()
_SENT: Final = "/%:@!$&'()*+,;=~"  # what libraries send of a path as it is, besides the unreserved
_versions: Final = itertools.count(1)


def version() -> int:
    """Return a number that changes with each registration."""
    return _table.version


class Match(Struct, frozen=True, gc=False):
    """What a request's address says: which operation of which provider."""

    provider: Provider
    operation: Operation
    place: RequestPath


def find(host: str, path: str, headers: Mapping[str, str]) -> Match | None:
    """Return what a request's address and headers say of it; None if it is nobody's.

    Every request of a process comes by here. So the paths of those alone are looked at whose host
    or headers say enough.

    Args:
        host: With its port, if the URL names it.
        path: Of the URL, as it is sent.
        headers: By their names in lower case.
    """
    table, path = _table, plain_path(path)
    for provider in _providers(table, host, *[headers.get(name, "") for name in table.markers]):
        if (match := _match(provider, path)) is not None:
            return match
    return None


def is_endpoint(path: str) -> bool:
    """Tell whether a path is an endpoint's of any provider, at the least cost where it isn't."""
    return _is_endpoint(_table, plain_path(path))


@functools.lru_cache(maxsize=1024)
def _is_endpoint(table: _Table, path: str) -> bool:
    return any(_match(provider, path) is not None for provider in table.providers)


def name_at(host: str) -> str:
    """Return the name of the provider that a host, with its port, is known to be; "" for none."""
    return _name_at(_table, host)


@functools.lru_cache(maxsize=256)
def _name_at(table: _Table, host: str) -> str:
    return next((one.name for one in table.providers if one.is_at(host)), "")


@functools.lru_cache(maxsize=1024)
def _providers(table: _Table, host: str, *marks: str) -> tuple[Provider, ...]:
    """Return whose a request may be, the surest first."""
    headers = dict(zip(table.markers, marks, strict=True))
    found = [
        *(one for one in table.providers if one.is_at(host)),
        *(one for one in table.providers if one.is_marked(headers)),
        *(one for one in table.providers if one.anywhere),
    ]
    return tuple(dict.fromkeys(found))


@functools.lru_cache(maxsize=1024)
def _match(provider: Provider, path: str) -> Match | None:
    if provider.base and not f"{path}/".startswith(f"{provider.base}/"):
        return None
    for operation in provider.operations:
        if (place := place_of(path, operation)) is not None:
            return Match(provider, operation, place)
    return None


def register(provider: Provider) -> None:
    """Cache the requests of one more provider, or of a server of your own, from now on.

    Registered ones are looked at first, the latest before all others. One that differs in neither
    name, base nor operations takes the other's place.

    Raises:
        TypeError: It is no `Provider`.
        ValueError: It has a marker that is in any value.
    """
    global _table  # noqa: PLW0603 - there is one table for the process
    if not isinstance(provider, Provider):
        raise TypeError(
            f"register takes a Provider, not {described(provider)}: for a server of your own that"
            ' speaks a known protocol pass endpoint("https://llm.corp/v1", like="openai-chat")'
        )
    if not all(value for _, value in provider.markers):
        raise ValueError(
            "a marker needs a part of a value, as any other client's header would do:"
            ' ("user-agent", "my-client/")'
        )
    others = (one for one in _table.registered if _described(one) != _described(provider))
    registered = (provider, *others)
    names = [name for one in registered for name, _ in one.markers]
    markers = tuple(dict.fromkeys([*names, *_Table().markers]))
    _table = _Table(registered, (*registered, *_KNOWN), markers, next(_versions))


def _described(provider: Provider) -> tuple[object, ...]:
    return provider.name, provider.base, *(operation.name for operation in provider.operations)


def endpoint(url: str, *, like: str) -> Provider:
    """Return a provider for a server of your own that speaks a protocol that is known here.

    Args:
        url: The server's base URL, as SDKs take it, or the whole URL of the endpoint.
        like: The operation that it is like, e.g. "openai-chat", or a provider's name for all of its
            operations.

    Raises:
        ValueError: ``url`` is no http URL, or nothing is known by the name of ``like``.

    Example:
        >>> from asynccache.http import endpoint, register
        >>> register(endpoint("https://llm.corp/v1", like="openai-chat"))
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f'{url!r} is no http URL: write it like "https://llm.corp/v1"')
    alike = [
        (known, operation)
        for known in _KNOWN
        for operation in known.operations
        if like in {known.name, operation.name}
    ]
    if not alike:
        names = sorted({operation.name for known in _KNOWN for operation in known.operations})
        raise ValueError(f"nothing is known by the name {like!r}: there are {', '.join(names)}")
    hosts = _spellings(parts)
    base = plain_path(quote(parts.path.rstrip("/"), safe=_SENT))
    operations = {operation.name: operation for _, operation in alike}
    if len(operations) == 1 and base:  # the URL may be the endpoint's own
        operations[""] = replace(alike[0][1], path=re.compile(f"^{re.escape(base)}$"))
    return Provider(
        name=hosts[0],
        hosts=hosts,
        base=base,
        operations=tuple(operations.values()),
        kept_headers=alike[0][0].kept_headers,
    )


def _spellings(url: SplitResult) -> tuple[str, ...]:
    """Return the host of a URL, with its port if that is not the usual one, as libraries send it.

    Raises:
        ValueError: It is no name of a host.
    """
    named = url.netloc.rpartition("@")[2].lower().removesuffix(DEFAULT_PORTS[url.scheme])
    host = url.hostname or ""
    port = named.removeprefix(f"[{host}]" if ":" in host else host)
    if not host.isascii():
        idna = importlib.import_module("idna")  # every HTTP library stands on it
        return (f"{idna.encode(host, uts46=True).decode()}{port}",)
    if ":" in host:  # some shorten it
        return tuple({named: 0, f"[{ip_address(host).compressed}]{port}": 0})
    return (named,)
