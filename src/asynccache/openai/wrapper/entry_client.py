"""One entry of a wrapper's list in one event loop: what a call sends, through which client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, cast

import msgspec
from msgspec import UNSET
from msgspec.structs import replace
from openai import AsyncOpenAI
from openai.types import Completion
from openai.types.chat import ChatCompletion

from asynccache.cache.facade import Answer, AsyncCache, Options, StoreIf, plain, under
from asynccache.openai.wrapper.config import ConfigEntry, WrapperSettings, undotted
from asynccache.openai.wrapper.results import figures_of
from asynccache.runtime.bounded import BoundedDict

_WRAPPED: Final = 8  # caches that one client is wrapped for: more than a program has at once


class EntryClient:
    """One entry of the list in one event loop.

    Args:
        entry: The entry.
    """

    __slots__ = ("_wrapped", "client", "entry")

    def __init__(self, entry: ConfigEntry) -> None:
        self.entry = entry
        self.client = entry.make_client()
        # Bounded, as each wrapped client keeps its cache alive.
        self._wrapped: BoundedDict[AsyncCache, AsyncOpenAI] = BoundedDict(_WRAPPED)

    def prepare(self, params: Mapping[str, Any], settings: WrapperSettings) -> dict[str, Any]:
        """Return what is sent: a call's parameters over the entry's, with the context put in.

        Raises:
            ValueError: There are not exactly one of messages and prompt, or a stream is to be
                filtered.
            KeyError: A format string names what the context hasn't.
        """
        sent = {**self.entry.create, **params}
        messages, prompt = sent.get("messages"), sent.get("prompt")
        if (messages is None) is (prompt is None):
            raise ValueError("pass either messages or prompt, one of them and not both")
        sent.pop("prompt" if prompt is None else "messages", None)  # it may be there, as None
        if self.entry.azure and isinstance(sent.get("model"), str):
            sent["model"] = undotted(sent["model"])
        if settings.filter_func is not None and sent.get("stream"):
            raise ValueError(
                "filter_func can't judge a stream before it is read: leave one of them out"
            )
        if settings.context:
            fill = partial(
                filled, context=settings.context, formats=settings.allow_format_str_template
            )
            if messages is None:
                sent["prompt"] = fill(prompt)
            else:
                sent["messages"] = [_filled_message(message, fill) for message in messages]
        return sent

    async def send(
        self,
        params: dict[str, Any],
        cache: AsyncCache | None,
        settings: WrapperSettings,
        options: Options,
        rule: FilterRule | None,
    ) -> Any:
        """Make a call through a cache, or without any, under its seed and rule."""
        client = self.client if cache is None else self._through(cache)
        api: Any = client.chat.completions if "messages" in params else client.completions
        if cache is None:
            return await api.create(**params)
        changes: dict[str, Any] = {}
        if options.cache is not UNSET and options.cache is not cache:
            changes["cache"] = cache
        seed = settings.cache_seed
        if seed is not UNSET and str(seed) != options.namespace(cache.settings.namespace).seed:
            changes["cache_seed"] = str(seed)  # as a namespace has it
        if rule is not None:
            changes["store_if"] = rule
        if not changes:
            return await api.create(**params)
        with under(replace(options, **changes)):
            return await api.create(**params)

    def _through(self, cache: AsyncCache) -> AsyncOpenAI:
        client = self._wrapped.get(cache)
        if client is None:
            client = self._wrapped[cache] = cache.wrap(self.client)
        return client


def filled(template: object, context: Mapping[str, Any] | None, *, formats: bool) -> Any:
    """Return a template with the context put in; see `OpenAIWrapper.instantiate`."""
    if context and isinstance(template, str):
        return template.format(**context) if formats else template
    return template(context) if context and callable(template) else template


def _filled_message(message: object, fill: Callable[[object], object]) -> object:
    if not isinstance(message, Mapping):
        return message
    members = cast("Mapping[str, object]", message)
    content = members.get("content")
    return {**members, "content": fill(content)} if content else members


class FilterRule:
    """A call's filter, asked before its answer is stored: a rejected one never is.

    An answer that was stored before, or that another caller has asked for, stays stored. The filter
    is asked about it when it has come.

    Args:
        settings: Hold the filter and its context.
        store_if: What else decides whether an answer is stored.
        chat: Whether the answer is a chat completion.
    """

    __slots__ = ("_kind", "_settings", "_store_if", "_verdict")

    def __init__(self, settings: WrapperSettings, store_if: StoreIf, *, chat: bool) -> None:
        self._settings = settings
        self._store_if = store_if
        self._kind: Any = ChatCompletion if chat else Completion
        self._verdict: bool | None = None

    def __call__(self, answer: Answer) -> bool:
        """Tell whether to store an answer that this very call has paid for."""
        if not plain("store_if", self._store_if(answer)):
            return False
        body = msgspec.json.decode(answer.body)
        response = self._kind.construct(**body) if isinstance(body, dict) else body
        self._verdict = self._ask(response)
        return self._verdict

    def passes(self, response: object, *, paid: bool) -> bool:
        """Tell whether a response is good. One that was paid for now may have been asked about."""
        if paid and self._verdict is not None:
            return self._verdict
        return self._ask(response)

    def _ask(self, response: object) -> bool:
        settings = self._settings
        note(response, cost=figures_of(response, settings.price)[0])  # the filter may read it
        judge = settings.filter_func
        return judge is None or bool(judge(context=settings.context, response=response))


def note(response: object, **notes: object) -> None:
    """Note something on a response as AutoGen does, but beside its fields."""
    if hasattr(response, "__dict__"):  # some servers answer with text, or null
        vars(response).update(notes)
