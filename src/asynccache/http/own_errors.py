"""Lets our own errors out of SDKs that turn whatever their HTTP client raises into one of theirs.

Those that Stainless makes (anthropic, groq, together, cerebras) take each exception of an HTTP
client for a broken connection, and try again. So between the transport and the SDK's ``request``
ours is no exception of theirs.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from asynccache.errors import AsyncCacheError

MADE_BY_STAINLESS: Final = frozenset({"AsyncAPIClient", "SyncAPIClient"})
_awaited: Final[ContextVar[bool]] = ContextVar("asynccache_awaited", default=False)


class _Escape(BaseException):
    """Carries an error of ours past the SDK; never leaves the library."""

    def __init__(self, error: AsyncCacheError) -> None:
        super().__init__(error)
        self.error = error


def to_raise(error: AsyncCacheError) -> BaseException:
    """Return what a transport has to raise for an error of ours."""
    return _Escape(error) if _awaited.get() else error


def hides_errors(client: object) -> bool:
    """Tell whether a client is of an SDK that turns all errors into its own."""
    return not MADE_BY_STAINLESS.isdisjoint(base.__name__ for base in type(client).__mro__)


def letting_out(request: Callable[..., Any]) -> Callable[..., Any]:
    """Return such a client's ``request``, bound or not, that raises errors of ours as they are."""

    @functools.wraps(request)
    def called(*args: Any, **kwargs: Any) -> Any:
        token = _awaited.set(True)
        try:
            return request(*args, **kwargs)
        except _Escape as escape:
            raise escape.error from None
        finally:
            _awaited.reset(token)

    @functools.wraps(request)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        before = _awaited.get()
        _awaited.set(True)
        try:
            return await request(*args, **kwargs)
        except _Escape as escape:
            raise escape.error from None
        finally:
            _awaited.set(before)

    return awaited if inspect.iscoroutinefunction(request) else called
