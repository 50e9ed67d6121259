"""The lookups of LiteLLM's calls, so that an answer is stored under the key it was looked up by.

LiteLLM stores in the background, and reads the caller's own lists then. The caller may have changed
them for the next request, so a key that was made of them then would belong to another request.
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
from asynccache.providers.judging import Judge


class Key(str):
    """The key of a request, with the options that were in force when it was made.

    LiteLLM passes it on as text. A copy is plain text: LiteLLM puts keys into answers, and users
    copy and pickle these.
    """

    __slots__ = ("found", "judge", "options")

    options: Options
    """They name the cache that was in force. The number of a sample is in the text of the key."""
    found: bool
    """Whether the lookup found an answer."""
    judge: Judge | None
    """Tells whether the answer is usable, once that is there."""

    def __new__(cls, text: str, options: Options = NO_OPTIONS) -> Self:
        """Return a key of a lookup that has found nothing yet."""
        key = super().__new__(cls, text)
        key.options = options
        key.found, key.judge = False, None
        return key

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


class _Lookup(Struct, frozen=True, eq=False):
    """The lookup of one call: of a whole answer, or of each input of an embedding, in order."""

    handler: object
    """LiteLLM has one for each call."""
    by_input: bool
    arguments: dict[str, object]
    keys: list[Key]


class PendingLookups:
    """The lookups of calls under way, by the logging object of each call.

    Calls that LiteLLM makes for another call share its logging object, and so do all calls of its
    proxy for one request. Their arguments tell them apart.
    """

    def __init__(self) -> None:
        self._of: WeakKeyDictionary[Any, list[_Lookup]] = WeakKeyDictionary()

    def note(self, kwargs: Mapping[str, Any], key: Key) -> None:
        """Remember the key of a lookup."""
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
        """Return the keys by which a call was looked up. None of them if that isn't certain."""
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
    """Return whether a lookup is for one input of an embedding."""
    function = getattr(_handler(kwargs), "original_function", None)
    return getattr(function, "__name__", None) == "aembedding"


def _handler(kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401 - LiteLLM's
    return getattr(kwargs.get("litellm_logging_obj"), "llm_caching_handler", None)


def _arguments(kwargs: Mapping[str, Any], *, by_input: bool) -> dict[str, object]:
    """Return the arguments that are the same objects when LiteLLM looks up and when it stores."""
    changing = {"max_tokens", "input"} if by_input else {"max_tokens"}
    return {name: value for name, value in keyed(kwargs).items() if name not in changing}


def _same(one: dict[str, object], other: dict[str, object]) -> bool:
    """Return whether arguments are the same objects. Their contents may have changed meanwhile."""
    return one.keys() == other.keys() and all(other[name] is one[name] for name in one)
