"""The SDK's ``parse`` methods, whose requests and results it derives from a class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from openai.lib._parsing import (
    parse_chat_completion,
    type_to_response_format_param,
    validate_input_tools,
)
from openai.lib._parsing._responses import parse_response, type_to_text_format_param

from asynccache.openai import _sdk
from asynccache.openai._asked import Wanted
from asynccache.openai._door import Arguments, Door
from asynccache.openai._request import Body, Ignore, body_of_arguments

_REMEMBERED: Final = 256  # classes that answers are parsed into


class ParseChatDoor(Door):
    """``chat.completions.parse``: a completion whose content is parsed into a class."""

    uncopied = ("response_format",)

    def _body(self, ignore: Ignore, kwargs: Arguments) -> Body | None:
        derived: Arguments = {"stream": False}  # as the SDK sends it
        kind = kwargs.get("response_format", _sdk.OMIT)
        if isinstance(kind, type):
            derived["response_format"] = _RESPONSE_FORMATS.of(kind)
        elif _sdk.is_given(kind) and not isinstance(kind, dict):
            return None
        if "tools" in kwargs:
            tools = kwargs["tools"]
            try:
                if _sdk.is_given(tools):
                    kwargs["tools"] = tools = list(tools)
                derived["tools"] = validate_input_tools(tools)
            except (KeyError, TypeError, ValueError):
                return None  # the SDK says best what is wrong with one
        return _body_of(kwargs, derived, self._endpoint.params, ignore)

    def _want(self, kwargs: Arguments, headers: Any) -> Wanted:
        kind = kwargs.get("response_format", _sdk.OMIT)
        tools = kwargs.get("tools", _sdk.OMIT)

        def finish(completion: Any) -> Any:
            return parse_chat_completion(
                response_format=kind, input_tools=tools, chat_completion=completion
            )

        return self._finished(headers, finish)


class ParseResponseDoor(Door):
    """``responses.parse``: a response whose text is parsed into a class."""

    uncopied = ("text_format", "tools")

    def _body(self, ignore: Ignore, kwargs: Arguments) -> Body | None:
        given = kwargs.get("input")
        # What is parsed as depends on the input here, by rules of the SDK's own.
        if "parse_as" in kwargs or not isinstance(given, str | None):
            return None
        if _sdk.is_given(kwargs.get("stream", _sdk.OMIT)) or kwargs.get("extra_body"):
            return None
        derived: Arguments = {}
        kind = kwargs.get("text_format", _sdk.OMIT)
        if _sdk.is_given(kind):
            text: dict[str, Any] = kwargs.get("text") or {}
            if not isinstance(kind, type) or "format" in text:
                return None
            derived["text"] = {**text, "format": _TEXT_FORMATS.of(kind)}
        if "tools" in kwargs and _sdk.is_given(kwargs["tools"]):
            kwargs["tools"] = list(kwargs["tools"])
            try:
                derived["tools"] = _sdk.response_tools(kwargs["tools"])
            except Exception:  # noqa: BLE001 - the SDK raises bare ones, and says it again itself
                return None
        return _body_of(kwargs, derived, self._endpoint.params, ignore, without="text_format")

    def _want(self, kwargs: Arguments, headers: Any) -> Wanted:
        kind = kwargs.get("text_format", _sdk.OMIT)
        tools = kwargs.get("tools", _sdk.OMIT)

        def finish(response: Any) -> Any:
            return parse_response(
                text_format=kind, input_tools=_sdk.response_tools(tools), response=response
            )

        return self._finished(headers, finish)


class _Schemas:
    """Remembers what the SDK derives from a class, which takes it a millisecond.

    Args:
        derive: Of the SDK.
    """

    def __init__(self, derive: Callable[[Any], Any]) -> None:
        self._derive = derive
        self._known: dict[type, tuple[object, Any]] = {}

    def of(self, kind: type) -> Any:
        """Return what is sent for a class."""
        # A model that is rebuilt gets another validator.
        version = getattr(kind, "__pydantic_validator__", None)
        known = self._known.get(kind)
        if known is None or known[0] is not version:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[kind] = (version, self._derive(kind))
        return known[1]


_RESPONSE_FORMATS: Final = _Schemas(type_to_response_format_param)
_TEXT_FORMATS: Final = _Schemas(type_to_text_format_param)


def _body_of(
    kwargs: Arguments, derived: Arguments, params: Any, ignore: Ignore, *, without: str = ""
) -> Body:
    """Return the body of a call some of whose arguments the SDK replaces by what it derives."""
    shown = {**kwargs, **derived}
    shown.pop(without, None)
    body = body_of_arguments(shown, params, ignore)
    for name in kwargs:
        if name not in derived and name != without:  # what was an iterator is a list now
            kwargs[name] = shown[name]
    return body
