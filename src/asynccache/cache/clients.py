"""Who knows how to wrap which client: told by name, so that no floor imports from above."""

from __future__ import annotations

import importlib
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final, TypeVar

from asynccache.errors import described

ClientT = TypeVar("ClientT")

_HTTP: Final = (
    "httpx", "httpx2", "aiohttp", "anthropic", "cerebras", "cohere", "google", "groq",
    "huggingface_hub", "mistralai", "ollama", "together",
)  # fmt: skip
_WRAPPERS: Final = {"openai": "asynccache.openai", **dict.fromkeys(_HTTP, "asynccache.http")}
"""By the package of a client's class: the module whose ``wrap`` takes it."""
_OTHER_LIBRARIES: Final = frozenset({
    "aiobotocore", "boto3", "botocore", "grpc", "http", "pycurl", "requests", "urllib", "urllib3",
})  # fmt: skip
"""Packages of HTTP clients, and of what stands on one, whose requests aren't cached."""


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
    """Return the error for what can't be wrapped: it says what would work instead."""
    kind = type(client)
    package = kind.__module__.partition(".")[0]
    if isinstance(client, type):
        instead = f"pass an instance, made by {client.__name__}(...)"
    elif isinstance(client, ModuleType):
        instead = (
            f"asynccache.instrument() serves the clients that {client.__name__} makes, if they are"
            " of openai, httpx, httpx2 or aiohttp"
        )
    elif isinstance(client, FunctionType | BuiltinFunctionType | MethodType):
        instead = "wrap takes a client; for a function there is cache.memoize"
    elif package in _WRAPPERS:
        instead = (
            "there is no HTTP client of httpx, httpx2 or aiohttp in it, as there is in the clients"
            f" of recent versions of {package}; calls by others go into functions with memoize"
        )
    elif package in _OTHER_LIBRARIES:
        instead = (
            f"requests by {package} aren't cached; put its calls into functions with memoize, or"
            " use a client of httpx, httpx2 or aiohttp"
        )
    else:
        instead = (
            "pass a client of an SDK such as openai.AsyncOpenAI or anthropic.AsyncAnthropic, or one"
            " of httpx, httpx2 or aiohttp; for clients that a framework makes itself there is"
            " asynccache.instrument(), and all other calls go into functions with memoize"
        )
    return TypeError(f"can't wrap {_named(client)}: {instead}")


def _named(client: object) -> str:
    return f"the module {client.__name__}" if isinstance(client, ModuleType) else described(client)
