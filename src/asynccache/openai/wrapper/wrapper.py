"""`OpenAIWrapper`: a list of models asked in order, as AutoGen's, with a cache behind each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias, cast, overload

from msgspec import UNSET
from openai import APIError, AsyncStream
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage

from asynccache.cache import in_force
from asynccache.core.calls import status_of
from asynccache.openai.wrapper.config import EXTRAS, NONE_SAYS, UNUSED, WrapperSettings, plans_of
from asynccache.openai.wrapper.entry_client import Bound, EntryClient, cache_meant, inside, judge_of
from asynccache.openai.wrapper.loop import loop_state
from asynccache.openai.wrapper.sync import SyncCalls
from asynccache.openai.wrapper.text import choices_of, filled
from asynccache.openai.wrapper.types import NotedChatCompletion, NotedCompletion
from asynccache.openai.wrapper.usage import CountedStream, Mode, Usage, printed, summary

_log = logging.getLogger("asynccache")

_REFUSED: Final = "content_filter"  # the code of an error that ends the list, as in AutoGen

Response: TypeAlias = (
    NotedChatCompletion
    | NotedCompletion
    | CountedStream[ChatCompletionChunk]
    | CountedStream[Completion]
)


class OpenAIWrapper(SyncCalls):
    """Asks a list of models in order until one gives a good answer, each answer cached.

    The asynchronous heir of AutoGen's class of that name; `create` is `acreate` for code that can't
    await. Per call wins over an entry, an entry
    over the constructor, as AutoGen's documentation has it.

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
        self._plans: Final = plans_of(config_list, base_config)
        # Made here, so that what a client lacks is said at once; used by the first event loop.
        self._spare: Final = [[plan.make_client() for plan in self._plans]]
        self._bounds: Final[dict[asyncio.AbstractEventLoop, Bound]] = {}
        self._bound: Bound | None = None
        self._usages: Final[dict[asyncio.AbstractEventLoop, Usage]] = {}
        self._past: Final = Usage()  # of loops that are gone

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the clients made for this event loop. At the loop's proper end it happens anyway.

        Clients that were handed in, and caches, are left open. The wrapper may be used again.
        """
        bound = self._bounds.pop(asyncio.get_running_loop(), None)
        if bound is not None:
            if self._bound is bound:
                self._bound = None
            await bound.aclose()

    # -- calls -------------------------------------------------------------------------------

    @overload
    async def acreate(
        self,
        *,
        messages: Iterable[Mapping[str, Any]],
        stream: Literal[False] | None = None,
        **config: Any,
    ) -> NotedChatCompletion: ...
    @overload
    async def acreate(
        self, *, messages: Iterable[Mapping[str, Any]], stream: Literal[True], **config: Any
    ) -> CountedStream[ChatCompletionChunk]: ...
    @overload
    async def acreate(
        self, *, prompt: object, stream: Literal[False] | None = None, **config: Any
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
        bound = self._bound
        if bound is None or bound.loop is not asyncio.get_running_loop():
            bound = await self._bind()
        extras = None if EXTRAS.isdisjoint(config) else _taken_out(config)
        last = bound.seats[-1]
        _make_rereadable(config)
        for seat in bound.seats:
            settings, params = seat.asked(config, extras)
            options = in_force.current_options()
            cache = cache_meant(settings, options)
            if cache is UNSET:
                cache = await bound.implicit_cache(settings, options)
            chat = "messages" in params
            create = seat.method(cache, chat=chat)
            judge = judge_of(cache, settings, chat=chat)
            try:
                if options is in_force.NO_OPTIONS and settings.cache_seed is UNSET and not judge:
                    response = await create(**params)
                else:
                    response = await inside(create, params, cache, settings, options, judge=judge)
            except APIError as exc:
                if seat is last or exc.code == _REFUSED:
                    raise
                _log.debug("%s: %s, the next is tried", seat.plan.where, type(exc).__name__)
                continue
            if isinstance(response, AsyncStream):
                return _counted(bound, seat, settings, response)
            status = status_of(response)
            if status is None or status.outcome == "miss":
                bound.usage.actual.add(response, settings.price)
            passed = judge is None or judge.passes(response)
            if passed or seat is last:
                cost = bound.usage.total.add(response, settings.price)
                _note(response, seat, passed=passed, cost=cost)
                return cast("Response", response)
        raise AssertionError("the last entry returns or raises")

    async def _bind(self) -> Bound:
        """Return this wrapper as it is in the running loop, with clients of that loop's own."""
        loop = asyncio.get_running_loop()
        state = await loop_state()
        for gone in [known for known in list(self._usages) if known.is_closed()]:
            self._bounds.pop(gone, None)
            usage = self._usages.pop(gone, None)
            if usage is not None:
                self._past.absorb(usage)
        bound = self._bounds.get(loop)
        if bound is None:
            try:
                clients = self._spare.pop()
            except IndexError:
                clients = [plan.make_client() for plan in self._plans]
            seats = [
                EntryClient(plan, client) for plan, client in zip(self._plans, clients, strict=True)
            ]
            usage = self._usages.setdefault(loop, Usage())
            bound = self._bounds[loop] = Bound(loop, state, seats, usage)
        self._bound = bound
        return bound

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
        return choices_of(response)

    # -- usage -------------------------------------------------------------------------------

    @property
    def actual_usage_summary(self) -> dict[str, Any] | None:
        """What was paid for: ``total_cost`` and, by model, cost and tokens; None for nothing."""
        return summary([usage.actual for usage in self._all_usage()])

    @property
    def total_usage_summary(self) -> dict[str, Any] | None:
        """The same with the answers that cost nothing, from the cache or shared with others."""
        return summary([usage.total for usage in self._all_usage()])

    def print_usage_summary(self, mode: Mode | Sequence[Mode] = ("actual", "total")) -> None:
        """Print what was used.

        Args:
            mode: ``"actual"``, ``"total"``, or both in a list.

        Raises:
            ValueError: There is no such mode.
        """
        modes: list[Mode] = [mode] if isinstance(mode, str) else list(mode)
        if not modes or not {"actual", "total"}.issuperset(modes):
            raise ValueError(f'mode must be "actual", "total" or both in a list, not {mode!r}')
        print(printed(self.actual_usage_summary, self.total_usage_summary, modes))  # noqa: T201 - asked for

    def clear_usage_summary(self) -> None:
        """Begin to count anew."""
        for usage in self._all_usage():
            usage.clear()

    def _all_usage(self) -> list[Usage]:
        return [self._past, *self._usages.values()]


def _taken_out(config: dict[str, Any]) -> dict[str, Any] | None:
    """Take the wrapper's own words out of a call's; return those that say something."""
    found: dict[str, Any] = {}
    for name in EXTRAS & config.keys():
        value = config.pop(name)
        # AutoGen's agents always name agent, cache and context, the latter two often as None.
        if name not in UNUSED and (value is not None or name in NONE_SAYS):
            found[name] = value
    return found or None


def _make_rereadable(config: dict[str, Any]) -> None:
    """Make lists of iterators: what one entry has read, the next can't read again."""
    for name, value in config.items():
        if isinstance(value, Iterator):
            config[name] = list(cast("Iterator[object]", value))


def _note(response: object, seat: EntryClient, *, passed: bool, cost: float) -> None:
    """Note on a response what AutoGen notes there, beside its fields and not among them."""
    beside: dict[str, object] | None = getattr(response, "__dict__", None)
    if beside is not None:  # some servers answer with text, or null
        beside["config_id"] = seat.plan.number
        beside["pass_filter"] = passed
        beside["cost"] = cost


def _counted(
    bound: Bound, seat: EntryClient, settings: WrapperSettings, stream: Any
) -> CountedStream[Any]:
    spent = [bound.usage.total]
    status = status_of(stream)
    if status is None or status.outcome == "miss":
        spent.append(bound.usage.actual)
    counted = CountedStream(stream, settings.price, spent)
    counted.config_id = seat.plan.number
    return counted
