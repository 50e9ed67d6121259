"""`OpenAIWrapper`: a list of models asked in order, as AutoGen's, with a cache behind each."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, Self, TypeAlias, cast, overload
from weakref import WeakKeyDictionary

from msgspec import UNSET, UnsetType
from openai import APIError, AsyncStream
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage

from asynccache.cache.facade import (
    AsyncCache,
    Options,
    current_cache,
    current_options,
    status_of,
    store_good,
)
from asynccache.errors import ReplayMiss, described
from asynccache.openai.wrapper.config import OWN_WORDS, WrapperSettings, entries_of
from asynccache.openai.wrapper.entry_client import EntryClient, FilterRule, filled, note
from asynccache.openai.wrapper.loop import LoopState, loop_state
from asynccache.openai.wrapper.results import (
    CountedStream,
    NotedChatCompletion,
    NotedCompletion,
    SyncStream,
    UsageTotals,
    figures_of,
)
from asynccache.runtime.background import call

_log = logging.getLogger("asynccache")

_REFUSED: Final = "content_filter"  # the code of an error that ends the list, as in AutoGen
_DEFAULT_SEED: Final = 41  # AutoGen's, of a wrapper that nobody gave a cache
_HEADINGS: Final = {"actual": "Paid for", "total": "Used, cached answers included"}

UsageMode = Literal["actual", "total"]
Messages: TypeAlias = Iterable[Mapping[str, Any]]
NoStream: TypeAlias = Literal[False] | None
Response: TypeAlias = (
    NotedChatCompletion
    | NotedCompletion
    | CountedStream[ChatCompletionChunk]
    | CountedStream[Completion]
)
SyncResponse: TypeAlias = (
    NotedChatCompletion | NotedCompletion | SyncStream[ChatCompletionChunk] | SyncStream[Completion]
)


class OpenAIWrapper:
    """Asks a list of models in order until one gives a good answer, each answer cached.

    It works as AutoGen's class of that name, with `acreate` to await; `create` is for code that
    can't await. A word in the call wins over the entry, and the entry over the constructor, as
    AutoGen's documentation has it.

    Args:
        config_list: Entries to try in order, each a dict of words for the client (``api_key``,
            ``base_url``, ``timeout`` in seconds, ...; ``api_type="azure"`` with Azure's; or a ready
            ``client``), for the call (``model``, ``temperature``, ...), and for the wrapper:
            ``cache``, ``cache_seed``, ``cache_path_root``, ``filter_func``, ``price``, ``context``,
            ``allow_format_str_template``; ``agent`` and ``tags`` are taken and not used.
        **base_config: The same words, for all entries; without ``config_list`` the only entry.

    Raises:
        TypeError: A word isn't known, or has a value of the wrong type.
        ValueError: A word has no such value, or words contradict each other.
        openai.OpenAIError: A client lacks something, such as its key.
    """

    def __init__(
        self, *, config_list: Sequence[Mapping[str, Any]] | None = None, **base_config: Any
    ) -> None:
        self._entries: Final = entries_of(config_list, base_config)
        # Made here, so that what a client lacks is said at once; used by the first event loop.
        self._unused: Final = [self._make_clients()]
        self._clients: Final[WeakKeyDictionary[LoopState, list[EntryClient]]] = WeakKeyDictionary()
        self._actual: Final = UsageTotals()
        self._total: Final = UsageTotals()

    def _make_clients(self) -> list[EntryClient]:
        return [EntryClient(entry) for entry in self._entries]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the clients made for this event loop. At the loop's proper end it happens anyway.

        Clients that were handed in, and caches, are left open. The wrapper may be used again.
        """
        state = await loop_state()
        for client in self._clients.pop(state, ()):
            if client.entry.owns_client:
                await state.close_client(client.client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the clients that `create` has made. The wrapper may be used again.

        Clients that were handed in, and caches, are left open. At the program's end it happens
        anyway.
        """
        call(self.aclose)

    # -- calls -------------------------------------------------------------------------------

    @overload
    async def acreate(
        self, *, messages: Messages, stream: NoStream = None, **config: Any
    ) -> NotedChatCompletion: ...
    @overload
    async def acreate(
        self, *, messages: Messages, stream: Literal[True], **config: Any
    ) -> CountedStream[ChatCompletionChunk]: ...
    @overload
    async def acreate(
        self, *, prompt: object, stream: NoStream = None, **config: Any
    ) -> NotedCompletion: ...
    @overload
    async def acreate(
        self, *, prompt: object, stream: Literal[True], **config: Any
    ) -> CountedStream[Completion]: ...
    @overload
    async def acreate(self, **config: Any) -> Response: ...
    async def acreate(self, **config: Any) -> Response:
        """Return the first good answer of the list, or the last entry's whatever it is.

        Args:
            **config: Parameters of ``chat.completions.create``, or of ``completions.create`` where
                there is a ``prompt``; and the wrapper's own words, of which ``cache`` names the
                cache for this call, and ``cache_seed=None`` does without any.

        Returns:
            The SDK's object, or with ``stream=True`` its stream. It carries ``config_id`` (the
            entry's number), ``pass_filter``, and ``cost`` (what it is worth at ``price``, paid now
            or not), none of which is in its dump.

        Raises:
            openai.APIError: The last entry failed, or a content filter refused the request.
            ReplayMiss: In mode "replay" nothing is stored for an entry; no other is tried.
            TypeError: A parameter isn't known, or has a value of the wrong type.
            ValueError: There are not exactly one of ``messages`` and ``prompt``, or a stream is to
                be filtered.
        """
        state = await loop_state()
        clients = self._clients.get(state) or self._bind(state)
        words, params = _divided(config)
        options = current_options()
        for number, client in enumerate(clients):
            last = client is clients[-1]
            settings = client.entry.settings.inside(options).with_words(words)
            sent = client.prepare(params, settings)
            cache = await _cache_for(state, settings, options)
            rule = None
            if settings.filter_func is not None:
                store_if = store_good if cache is None else cache.settings.store_if
                if options.store_if is not UNSET:
                    store_if = options.store_if
                rule = FilterRule(settings, store_if, chat="messages" in sent)
            try:
                response = await client.send(sent, cache, settings, options, rule)
            except APIError as exc:
                if last or exc.code == _REFUSED:
                    raise
                kind = type(exc).__name__
                _log.debug("config_list[%d]: %s, the next is tried", number, kind)
                continue
            status = status_of(response)
            paid = status is None or status.outcome == "miss"
            if isinstance(response, AsyncStream):
                totals = [self._total, self._actual] if paid else [self._total]
                return CountedStream(cast("Any", response), number, settings.price, totals)
            figures = figures_of(response, settings.price)
            if paid:
                self._actual.add(response, figures)
            passed = rule is None or rule.passes(response, paid=paid)
            if passed or last:
                self._total.add(response, figures)
                note(response, config_id=number, pass_filter=passed, cost=figures[0])
                return cast("Response", response)
        raise AssertionError("the last entry returns or raises")

    def _bind(self, state: LoopState) -> list[EntryClient]:
        """Return clients of this loop's own."""
        try:
            clients = self._unused.pop()
        except IndexError:
            clients = self._make_clients()
        self._clients[state] = clients
        for client in clients:
            if client.entry.owns_client:
                state.keep(client.client)
        return clients

    @overload
    def create(
        self, *, messages: Messages, stream: NoStream = None, **config: Any
    ) -> NotedChatCompletion: ...
    @overload
    def create(
        self, *, messages: Messages, stream: Literal[True], **config: Any
    ) -> SyncStream[ChatCompletionChunk]: ...
    @overload
    def create(
        self, *, prompt: object, stream: NoStream = None, **config: Any
    ) -> NotedCompletion: ...
    @overload
    def create(
        self, *, prompt: object, stream: Literal[True], **config: Any
    ) -> SyncStream[Completion]: ...
    @overload
    def create(self, **config: Any) -> SyncResponse: ...
    def create(self, **config: Any) -> SyncResponse:
        """Do as `acreate`, and wait for it.

        The call is made in the background loop, whose thread also calls ``filter_func`` and what
        templates there are. A thread that runs an event loop of its own may call it too, and holds
        that loop up meanwhile.

        Args:
            **config: As for `acreate`. ``cache`` may be what ``with`` gives or what ``async with``
                gives.

        Raises:
            RuntimeError: This is the background loop itself: await `acreate` there.
            Exception: As `acreate`.
        """
        response = call(partial(self.acreate, **config))
        if isinstance(response, CountedStream):
            return SyncStream(cast("Any", response))
        return response

    # -- templates and answers ---------------------------------------------------------------

    @staticmethod
    def instantiate(
        template: object,
        context: Mapping[str, Any] | None = None,
        allow_format_str_template: bool = False,  # noqa: FBT001, FBT002 - AutoGen's signature
    ) -> Any:
        """Return a prompt or a message's content with the context put in.

        Args:
            template: A function of the context; or text, a format string if that is allowed.
            context: What to put in. Without any, the template is returned as it is.
            allow_format_str_template: Whether text is a format string.
        """
        return filled(template, context, formats=allow_format_str_template)

    @staticmethod
    def extract_text_or_completion_object(
        response: ChatCompletion | Completion,
    ) -> list[str | ChatCompletionMessage | None]:
        """Return each choice's text, or its message where a tool or function is called.

        Raises:
            TypeError: It is a stream, or no completion at all.
        """
        if isinstance(response, Completion):
            return [choice.text for choice in response.choices]
        if not isinstance(response, ChatCompletion):
            raise TypeError(f"{described(response)} has no choices: pass a completion")
        messages = [choice.message for choice in response.choices]
        return [
            message if message.tool_calls or message.function_call else message.content
            for message in messages
        ]

    # -- usage -------------------------------------------------------------------------------

    @property
    def actual_usage_summary(self) -> dict[str, Any] | None:
        """What was paid for: ``total_cost`` and, by model, cost and tokens; None for nothing."""
        return self._actual.summary()

    @property
    def total_usage_summary(self) -> dict[str, Any] | None:
        """The same with the answers that cost nothing, from the cache or shared with others."""
        return self._total.summary()

    def print_usage_summary(
        self, mode: UsageMode | Sequence[UsageMode] = ("actual", "total")
    ) -> None:
        """Print what was used.

        Args:
            mode: ``"actual"``, ``"total"``, or both in a list.

        Raises:
            ValueError: There is no such mode.
        """
        modes = [mode] if isinstance(mode, str) else list(mode)
        totals = {"actual": self._actual, "total": self._total}
        if not modes or not totals.keys() >= set(modes):
            raise ValueError(f'mode must be "actual", "total" or both in a list, not {mode!r}')
        for name in modes:
            print(f"{_HEADINGS[name]}: {totals[name].text()}")  # noqa: T201 - asked for

    def clear_usage_summary(self) -> None:
        """Begin to count anew."""
        self._actual.clear()
        self._total.clear()


def _divided(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the wrapper's own words in a call, and what is sent."""
    words: dict[str, Any] = {}
    params: dict[str, Any] = {}
    for name, value in config.items():
        if name in OWN_WORDS:
            words[name] = value
        else:  # what one entry has read of an iterator, the next can't read again
            params[name] = list(value) if hasattr(value, "__next__") else value
    return words, params


async def _cache_for(
    state: LoopState, settings: WrapperSettings, options: Options
) -> AsyncCache | None:
    """Return the cache for a call, None for none.

    Raises:
        ReplayMiss: The implicit cache can't be used, and nothing may go upstream.
    """
    if settings.cache_seed is None:
        return None
    cache = current_cache() if settings.cache is None else settings.cache
    if cache is not None or options.cache is not UNSET or options.mode == "off":
        return cache
    seed, root = settings.cache_seed, settings.cache_path_root
    if isinstance(seed, UnsetType):
        seed = _DEFAULT_SEED
    cache = await state.cache(seed, root)
    if cache is None and options.mode == "replay":
        raise ReplayMiss(f"nothing can be replayed from {root}: it can't be used as a cache")
    return cache
