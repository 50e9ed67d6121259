"""The text of the wrapper's calls: templates on the way there, choices on the way back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionMessage

from asynccache.openai.wrapper.config import ConfigEntry, WrapperSettings, undotted


def prepared(
    plan: ConfigEntry, settings: WrapperSettings, params: dict[str, Any]
) -> dict[str, Any]:
    """Return what is sent to one entry: checked, and with the context put in.

    Raises:
        ValueError: There are not exactly one of messages and prompt, or a stream is to be filtered.
        KeyError: A format string names what the context hasn't.
    """
    messages, prompt = params.get("messages"), params.get("prompt")
    if (messages is None) is (prompt is None):
        raise ValueError("pass either messages or prompt, one of them and not both")
    params.pop("prompt" if prompt is None else "messages", None)  # it may be there, as None
    if plan.azure and isinstance(params.get("model"), str):
        params["model"] = undotted(params["model"])
    if settings.filter_func is not None and params.get("stream"):
        raise ValueError(
            "filter_func can't judge a stream before it is read: leave one of them out"
        )
    if settings.context:
        if messages is None:
            params["prompt"] = _filled(prompt, settings)
        else:
            given = cast("Iterable[object]", messages)
            params["messages"] = [_message(message, settings) for message in given]
    return params


def _message(message: object, settings: WrapperSettings) -> object:
    if not isinstance(message, Mapping):
        return message
    members = cast("Mapping[str, object]", message)
    content = members.get("content")
    return {**members, "content": _filled(content, settings)} if content else members


def _filled(template: object, settings: WrapperSettings) -> object:
    return filled(template, settings.context, formats=settings.allow_format_str_template)


def filled(template: object, context: Mapping[str, Any] | None, *, formats: bool) -> Any:
    """Return a template with the context put in; see `OpenAIWrapper.instantiate`."""
    if not context:
        return template
    if isinstance(template, str):
        return template.format(**context) if formats else template
    return template(context) if callable(template) else template


def choices_of(response: object) -> list[str | ChatCompletionMessage | None]:
    """Return what a completion's choices hold; see `extract_text_or_completion_object`."""
    if isinstance(response, Completion):
        return [choice.text for choice in response.choices]
    if not isinstance(response, ChatCompletion):
        raise TypeError(f"a {type(response).__qualname__} has no choices: pass a completion")
    messages = [choice.message for choice in response.choices]
    return [
        message if message.tool_calls or message.function_call else message.content
        for message in messages
    ]
