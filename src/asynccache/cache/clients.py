"""Who knows how to wrap which client: told by name, so that no floor imports from above."""

from __future__ import annotations

import importlib
from typing import Any, Final, TypeVar

from asynccache.errors import described

ClientT = TypeVar("ClientT")

_HTTP: Final = (
    "httpx", "httpx2", "aiohttp", "anthropic", "cerebras", "cohere", "google", "groq",
    "huggingface_hub", "mistralai", "ollama", "together",
)  # fmt: skip
_WRAPPERS: Final = {"openai": "asynccache.openai", **dict.fromkeys(_HTTP, "asynccache.http")}
"""By the package of a client's class: the module whose ``wrap`` takes it."""


def transport_over(inner: object, **options: object) -> Any:  # noqa: ANN401 - of httpx or httpx2
    """Return what `asynccache.http` makes of a transport."""
    return importlib.import_module("asynccache.http.wrapping").transport(inner, **options)


def wrap_client(client: ClientT, **options: object) -> ClientT:
    """Return what the package of a client's class, or of one of its bases, makes of it.

    Raises:
        TypeError: Nobody knows how to wrap such a client.
    """
    for base in type(client).__mro__:
        module = _WRAPPERS.get(base.__module__.partition(".")[0])
        if module is not None:
            wrapped: ClientT = importlib.import_module(module).wrap(client, **options)
            return wrapped
    raise not_wrappable(client)


def not_wrappable(client: object) -> TypeError:
    """Return the error for what is no client that can be wrapped."""
    return TypeError(
        f"can't wrap {described(client)}: pass an openai.AsyncOpenAI or openai.OpenAI, an instance;"
        " for clients that a framework makes there is instrument_openai(), and calls of other SDKs"
        " go into functions with memoize"
    )
