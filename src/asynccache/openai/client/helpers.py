"""The SDK's stream helpers, which parse what a stream says while they read it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from asynccache.openai.client.parsing import parsing_of

_READING: Final = ("handle_chunk", "handle_event")  # of the state of chat's helper, of responses'

_watched_classes: Final[dict[Any, Any]] = {}


def watched_helper(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return what stands in the place of a resource's ``stream``, bound or not."""

    @functools.wraps(original)
    def stream(*args: Any, **kwargs: Any) -> Any:
        manager = original(*args, **kwargs)
        manager.__class__ = _watched(type(manager))
        return manager

    return stream


def _watched(kind: Any) -> Any:
    """Return a class of the SDK's context managers whose streams are watched."""
    if kind in _watched_classes.values():
        return kind
    if kind not in _watched_classes:

        def enter(self: Any) -> Any:
            return _watch(kind.__enter__(self))

        async def async_enter(self: Any) -> Any:
            return _watch(await kind.__aenter__(self))

        members = {"__enter__": enter, "__aenter__": async_enter, "__module__": kind.__module__}
        members = {name: value for name, value in members.items() if hasattr(kind, name)}
        _watched_classes[kind] = type(kind.__name__, (kind,), members)
    return _watched_classes[kind]


def _watch(stream: Any) -> Any:
    state, parsing = stream._state, parsing_of(stream._raw_stream)
    if parsing is None:  # it went past the cache
        return stream
    for name in _READING:
        if (method := getattr(state, name, None)) is not None:
            setattr(state, name, parsing.watched(method))
    if (final := getattr(state, "get_final_completion", None)) is not None:
        watched = parsing.watched(lambda _: final())
        state.get_final_completion = lambda: watched(None)
    return stream
