"""What LiteLLM has looked up, so that its answer is stored under that and nothing else.

LiteLLM stores in the background, from the caller's own lists. By then these may be those of the
next request, so that a key made of them then would be another request's.
"""

# LiteLLM is typed with what can't be checked beside SDK 3, which this package is checked with.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self
from weakref import WeakKeyDictionary

from msgspec import Struct

from asynccache.cache.facade import NO_OPTIONS, Options
from asynccache.integrations.litellm.keys import keyed


class Key(str):
    """A request's key as LiteLLM hands it about, and what was in force where it was made.

    A copy is plain text: LiteLLM puts keys into answers, which their owners copy and pickle.
    """

    __slots__ = ("found", "options")

    options: Options
    """With the cache that was in force; the number of a sample is in the key's text."""
    found: bool
    """Whether something was stored under it."""

    def __new__(cls, text: str, options: Options = NO_OPTIONS) -> Self:
        """Return a key that nothing was found under yet."""
        key = super().__new__(cls, text)
        key.options = options
        key.found = False
        return key

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


class _Lookup(Struct, frozen=True, eq=False):
    """One call's lookup: of a whole answer, or of each input of an embedding, in order."""

    handler: object
    """LiteLLM's own, one for each call."""
    by_input: bool
    arguments: dict[str, object]
    keys: list[Key]


class PendingLookups:
    """The lookups of calls that are under way, by their objects for logging.

    Calls that LiteLLM makes for another one, and those of its proxy for one request, share such an
    object; then it is the arguments that tell them apart.
    """

    def __init__(self) -> None:
        self._of: WeakKeyDictionary[Any, list[_Lookup]] = WeakKeyDictionary()

    def note(self, kwargs: Mapping[str, Any], key: Key) -> None:
        """Keep the key of a lookup that is being made."""
        logging = kwargs.get("litellm_logging_obj")
        handler = _handler(kwargs)
        if handler is None:
            return
        # Streams are stored with these arguments, and without the object for logging.
        handler.request_kwargs["cache_key"] = key
        lookups = self._of.setdefault(logging, [])
        for lookup in lookups:
            if lookup.handler is handler:
                lookup.keys.append(key)
                return
        by_input = is_by_input(kwargs)
        lookups.append(_Lookup(handler, by_input, _arguments(kwargs, by_input=by_input), [key]))

    def keys(self, kwargs: Mapping[str, Any], *, by_input: bool = False) -> list[Key]:
        """Return what a call looked up that is to be stored now; nothing where that isn't sure."""
        logging = kwargs.get("litellm_logging_obj")
        lookups = [] if logging is None else self._of.get(logging, [])
        arguments = _arguments(kwargs, by_input=by_input)
        found = [
            lookup.keys
            for lookup in lookups
            if lookup.by_input == by_input and _same(lookup.arguments, arguments)
        ]
        return found[-1] if found and all(keys == found[-1] for keys in found) else []


def is_by_input(kwargs: Mapping[str, Any]) -> bool:
    """Tell whether a lookup is for one input of an embedding."""
    function = getattr(_handler(kwargs), "original_function", None)
    return getattr(function, "__name__", None) == "aembedding"


def _handler(kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401 - LiteLLM's
    return getattr(kwargs.get("litellm_logging_obj"), "llm_caching_handler", None)


def _arguments(kwargs: Mapping[str, Any], *, by_input: bool) -> dict[str, object]:
    """Return the arguments that LiteLLM passes on from looking up to storing."""
    changing = {"max_tokens", "input"} if by_input else {"max_tokens"}
    return {name: value for name, value in keyed(kwargs).items() if name not in changing}


def _same(one: dict[str, object], other: dict[str, object]) -> bool:
    """Tell whether arguments are the same objects: what these hold may have changed meanwhile."""
    return one.keys() == other.keys() and all(other[name] is one[name] for name in one)
