"""Who knows how to wrap which client: told from above, so that no floor looks up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

ClientT = TypeVar("ClientT")

_loaders: dict[str, Callable[[], Callable[..., Any]]] = {}


def register_wrapper(package: str, load: Callable[[], Callable[..., Any]]) -> None:
    """Let `AsyncCache.wrap` take clients of a package; ``load`` imports what wraps them."""
    _loaders[package] = load


def wrap_client(client: ClientT, **options: object) -> ClientT:
    """Return what the package of a client's class, or of one of its bases, makes of it.

    Raises:
        TypeError: Nobody knows how to wrap such a client.
    """
    for base in type(client).__mro__:
        load = _loaders.get(base.__module__.partition(".")[0])
        if load is not None:
            wrapped: ClientT = load()(client, **options)
            return wrapped
    raise TypeError(f"can't wrap a {type(client).__qualname__}: pass an openai.AsyncOpenAI")
