"""All providers that are known, those that the user has registered first."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from asynccache.errors import described
from asynccache.providers import anthropic, openai
from asynccache.providers.provider import Operation, Provider

_KNOWN: Final = (*openai.PROVIDERS, *anthropic.PROVIDERS, openai.LAST)
_registered: tuple[Provider, ...] = ()
_version = 0


def version() -> int:
    """Return a number that changes with each registration."""
    return _version


class Match(Struct, frozen=True, gc=False):
    """What a request's address says: which operation of which provider."""

    provider: Provider
    operation: Operation
    before: str
    """The part of the path that belongs to the server's address."""
    path: str
    """The rest, without a deployment."""
    deployment: str
    """The part in between that names a deployment, "" if none does."""
    model: str
    """The model, where the path names it."""


def find(host: str, path: str, headers: Mapping[str, str]) -> Match | None:
    """Return what a request's address and headers say of it; None if it is nobody's.

    Args:
        host: With its port, if the URL names it.
        path: Of the URL, as it is sent.
        headers: By their names in lower case.
    """
    for match, sure in _candidates(host, path, _registered):
        if sure or match.provider.is_marked(headers):
            return match
    return None


@functools.lru_cache(maxsize=1024)
def _candidates(
    host: str, path: str, registered: tuple[Provider, ...]
) -> tuple[tuple[Match, bool], ...]:
    """Return what a path may stand for, the surest first, and whether host and path are enough."""
    ranked: list[tuple[int, Match]] = []
    for provider in (*registered, *_KNOWN):
        if not path.startswith(provider.base):
            continue
        for operation in provider.operations:
            found = operation.path.search(path)
            if found is None:
                continue
            groups = found.groupdict()
            deployment = groups.get("deployment") or ""
            match = Match(
                provider,
                operation,
                path[: found.start()],
                path[found.start() + len(deployment) :],
                deployment,
                groups.get("model") or "",
            )
            if provider.is_at(host):
                ranked.append((0, match))
            elif provider.markers:
                ranked.append((1, match))
            if provider.anywhere:
                ranked.append((2, match))
            break
    ranked.sort(key=lambda pair: pair[0])
    return tuple((match, rank != 1) for rank, match in ranked)


def register(provider: Provider) -> None:
    """Cache the requests of one more provider, or of a server of your own, from now on.

    Registered ones are looked at first, the latest before all others. One of the same name takes
    the other's place.

    Raises:
        TypeError: It is no `Provider`.
    """
    global _registered, _version  # noqa: PLW0603 - there is one table for the process
    if not isinstance(provider, Provider):
        raise TypeError(
            f"register takes a Provider, not {described(provider)}: for a server of your own that"
            ' speaks a known protocol pass endpoint("https://llm.corp/v1", like="openai-chat")'
        )
    _registered = (provider, *(one for one in _registered if one.name != provider.name))
    _version += 1


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
    if parts.scheme not in {"http", "https"} or not parts.netloc:
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
    base = parts.path.rstrip("/")
    whole = re.compile(re.escape(base) + "$")
    operations = {operation.name: operation for _, operation in alike}
    exact = tuple(_at(operation, whole) for operation in operations.values())
    return Provider(
        name=parts.netloc.rpartition("@")[2],
        hosts=(parts.netloc.rpartition("@")[2],),
        base=base,
        operations=(*operations.values(), *(exact if len(operations) == 1 and base else ())),
        kept_headers=alike[0][0].kept_headers,
    )


def _at(operation: Operation, path: re.Pattern[str]) -> Operation:
    from msgspec.structs import replace

    return replace(operation, path=path)
