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

from asynccache.openai.client import sdk
from asynccache.openai.client.cached_method import Arguments, Body, CachedMethod, body_of
from asynccache.openai.client.call import ResultForm
from asynccache.runtime.bounded import BoundedDict

_REMEMBERED: Final = 256  # classes that answers are parsed into


class ParsedChatMethod(CachedMethod):
    """``chat.completions.parse``: a completion whose content is parsed into a class."""

    uncopied = ("response_format",)

    def _body(self, given: Arguments) -> Body | None:
        derived: Arguments = {"stream": False}  # as the SDK sends it
        kind = given.get("response_format", sdk.OMIT)
        if isinstance(kind, type):
            derived["response_format"] = _RESPONSE_FORMATS.of(kind)
        elif sdk.is_given(kind) and not isinstance(kind, dict):
            return None
        if "tools" in given:
            tools = given["tools"]
            try:
                if sdk.is_given(tools):
                    given["tools"] = tools = list(tools)
                derived["tools"] = validate_input_tools(tools)
            except (KeyError, TypeError, ValueError):
                return None  # the SDK says best what is wrong with one
        return _body_of(given, derived, self._endpoint.params)

    def _form(self, given: Arguments, headers: Any) -> ResultForm:
        kind = given.get("response_format", sdk.OMIT)

        def finish(completion: Any) -> Any:
            tools = given.get("tools", sdk.OMIT)  # a list by now
            return parse_chat_completion(
                response_format=kind, input_tools=tools, chat_completion=completion
            )

        return self._finished(headers, finish)


class ParsedResponseMethod(CachedMethod):
    """``responses.parse``: a response whose text is parsed into a class."""

    uncopied = ("text_format", "tools")

    def _body(self, given: Arguments) -> Body | None:
        asked = given.get("input")
        # What is parsed as depends on the input here, by rules of the SDK's own.
        if "parse_as" in given or not isinstance(asked, str | None):
            return None
        if sdk.is_given(given.get("stream", sdk.OMIT)) or given.get("extra_body"):
            return None
        derived: Arguments = {}
        kind = given.get("text_format", sdk.OMIT)
        if sdk.is_given(kind):
            text: dict[str, Any] = given.get("text") or {}
            if not isinstance(kind, type) or "format" in text:
                return None
            derived["text"] = {**text, "format": _TEXT_FORMATS.of(kind)}
        if "tools" in given and sdk.is_given(given["tools"]):
            given["tools"] = list(given["tools"])
            try:
                derived["tools"] = sdk.response_tools(given["tools"])
            except Exception:  # noqa: BLE001 - the SDK raises bare ones, and says it again itself
                return None
        return _body_of(given, derived, self._endpoint.params, without="text_format")

    def _form(self, given: Arguments, headers: Any) -> ResultForm:
        kind = given.get("text_format", sdk.OMIT)

        def finish(response: Any) -> Any:
            tools = sdk.response_tools(given.get("tools", sdk.OMIT))
            return parse_response(text_format=kind, input_tools=tools, response=response)

        return self._finished(headers, finish)


class _Schemas:
    """Remembers what the SDK derives from a class, which takes it up to a millisecond.

    Args:
        derive: Of the SDK.
    """

    def __init__(self, derive: Callable[[Any], Any]) -> None:
        self._derive = derive
        self._known: BoundedDict[type, tuple[Sequence[Any], object, Any]]
        self._known = BoundedDict(_REMEMBERED)

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


def _body_of(given: Arguments, derived: Arguments, params: Any, *, without: str = "") -> Body:
    """Return the body of a call some of whose arguments the SDK replaces by what it derives."""
    shown = {**given, **derived}
    shown.pop(without, None)
    body = body_of(shown, params)
    for name in given:
        if name not in derived and name != without:  # what was an iterator is a list now
            given[name] = shown[name]
    return body
