"""The SDK's ``parse`` methods, whose requests and results it derives from a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from openai.lib._parsing import (
    parse_chat_completion,
    type_to_response_format_param,
    validate_input_tools,
)
from openai.lib._parsing._responses import parse_response, type_to_text_format_param

from asynccache.cache.settings import Settings
from asynccache.openai.client import sdk
from asynccache.openai.client.body import RequestBody, body_of_arguments
from asynccache.openai.client.cached_method import Arguments, CachedMethod
from asynccache.openai.client.lookup import ResultForm

_REMEMBERED: Final = 256  # classes that answers are parsed into


class ParsedChatMethod(CachedMethod):
    """``chat.completions.parse``: a completion whose content is parsed into a class."""

    uncopied = ("response_format",)

    def _body(self, settings: Settings, kwargs: Arguments) -> RequestBody | None:
        derived: Arguments = {"stream": False}  # as the SDK sends it
        kind = kwargs.get("response_format", sdk.OMIT)
        if isinstance(kind, type):
            derived["response_format"] = _RESPONSE_FORMATS.of(kind)
        elif sdk.is_given(kind) and not isinstance(kind, dict):
            return None
        if "tools" in kwargs:
            tools = kwargs["tools"]
            try:
                if sdk.is_given(tools):
                    kwargs["tools"] = tools = list(tools)
                derived["tools"] = validate_input_tools(tools)
            except (KeyError, TypeError, ValueError):
                return None  # the SDK says best what is wrong with one
        return _body_of(kwargs, derived, self._endpoint.params, settings)

    def _want(self, kwargs: Arguments, headers: Any) -> ResultForm:
        kind = kwargs.get("response_format", sdk.OMIT)
        tools = kwargs.get("tools", sdk.OMIT)

        def finish(completion: Any) -> Any:
            return parse_chat_completion(
                response_format=kind, input_tools=tools, chat_completion=completion
            )

        return self._finished(headers, finish)


class ParsedResponseMethod(CachedMethod):
    """``responses.parse``: a response whose text is parsed into a class."""

    uncopied = ("text_format", "tools")

    def _body(self, settings: Settings, kwargs: Arguments) -> RequestBody | None:
        given = kwargs.get("input")
        # What is parsed as depends on the input here, by rules of the SDK's own.
        if "parse_as" in kwargs or not isinstance(given, str | None):
            return None
        if sdk.is_given(kwargs.get("stream", sdk.OMIT)) or kwargs.get("extra_body"):
            return None
        derived: Arguments = {}
        kind = kwargs.get("text_format", sdk.OMIT)
        if sdk.is_given(kind):
            text: dict[str, Any] = kwargs.get("text") or {}
            if not isinstance(kind, type) or "format" in text:
                return None
            derived["text"] = {**text, "format": _TEXT_FORMATS.of(kind)}
        if "tools" in kwargs and sdk.is_given(kwargs["tools"]):
            kwargs["tools"] = list(kwargs["tools"])
            try:
                derived["tools"] = sdk.response_tools(kwargs["tools"])
            except Exception:  # noqa: BLE001 - the SDK raises bare ones, and says it again itself
                return None
        return _body_of(kwargs, derived, self._endpoint.params, settings, without="text_format")

    def _want(self, kwargs: Arguments, headers: Any) -> ResultForm:
        kind = kwargs.get("text_format", sdk.OMIT)
        tools = kwargs.get("tools", sdk.OMIT)

        def finish(response: Any) -> Any:
            return parse_response(
                text_format=kind, input_tools=sdk.response_tools(tools), response=response
            )

        return self._finished(headers, finish)


class _Schemas:
    """Remembers what the SDK derives from a class, which takes it up to a millisecond.

    Args:
        derive: Of the SDK.
    """

    def __init__(self, derive: Callable[[Any], Any]) -> None:
        self._derive = derive
        self._known: dict[type, tuple[Sequence[Any], object, Any]] = {}

    def of(self, kind: type) -> Any:
        """Return what is sent for a class."""
        known = self._known.get(kind)
        if known is not None and known[1] == _version(kind, known[0]):
            return known[2]
        derived = self._derive(kind)
        models = _models_in(kind)
        if models is None:
            self._known.pop(kind, None)
            return derived
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[kind] = (models, _version(kind, models), derived)
        return derived


def _version(kind: Any, models: Sequence[Any]) -> object:
    """Return what changes when a class is rebuilt, or one that it holds is described anew."""
    validator = getattr(kind, "__pydantic_validator__", None)
    return validator, [(model.__name__, model.__doc__) for model in models]


def _models_in(kind: Any) -> Sequence[Any] | None:
    """Return a class and those it holds; None if functions of the user's make its schema."""
    if not _is_pydantics(getattr(kind, "model_json_schema", None)):
        return None
    found: list[Any] = []
    pending: list[Any] = [getattr(kind, "__pydantic_core_schema__", None)]
    for part in pending:
        if isinstance(part, list | tuple):
            pending.extend(cast("Sequence[Any]", part))
        if not isinstance(part, dict):
            continue
        members = cast("dict[str, Any]", part)
        said: dict[str, Any] = members.get("metadata") or {}
        made: list[Any] = [
            function
            for name in ("pydantic_js_functions", "pydantic_js_annotation_functions")
            for function in said.get(name) or ()
        ]
        if "pydantic_js_extra" in said or not all(map(_is_pydantics, made)):
            return None
        if isinstance(model := members.get("cls"), type):
            config: Any = getattr(model, "model_config", None) or {}
            if config.get("json_schema_extra") is not None:
                return None
            found.append(model)
        pending.extend(value for name, value in members.items() if name != "metadata")
    return found


def _is_pydantics(function: Any) -> bool:
    function = getattr(function, "func", function)  # of a partial
    return function is None or str(getattr(function, "__module__", "")).startswith("pydantic.")


_RESPONSE_FORMATS: Final = _Schemas(type_to_response_format_param)
_TEXT_FORMATS: Final = _Schemas(type_to_text_format_param)


def _body_of(
    kwargs: Arguments, derived: Arguments, params: Any, settings: Settings, *, without: str = ""
) -> RequestBody:
    """Return the body of a call some of whose arguments the SDK replaces by what it derives."""
    shown = {**kwargs, **derived}
    shown.pop(without, None)
    body = body_of_arguments(shown, params, settings)
    for name in kwargs:
        if name not in derived and name != without:  # what was an iterator is a list now
            kwargs[name] = shown[name]
    return body
