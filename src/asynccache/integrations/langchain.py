"""The cache as LangChain's own: ``set_llm_cache(LangChainCache())``.

What LangChain hands over is stored as plain data under names on a list, and built anew by those
classes: nothing in a store says which class to import.
"""

# Any JSON passes through here, so that pyright can't know what is in it.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from msgspec import Struct

from asynccache.cache.facade import (
    AsyncCache,
    FrameworkCache,
    Judging,
    SyncCache,
    behind,
    current_options,
    options,
    values_of,
)
from asynccache.entries.equality import difference
from asynccache.entries.values import decode_value, encode_value
from asynccache.errors import from_extra
from asynccache.keys.denied import DENIED_MEMBERS, is_denied_header
from asynccache.providers.chat import judge_chat
from asynccache.runtime import background

with from_extra("langchain"):
    from langchain_core import messages
    from langchain_core.caches import BaseCache
    from langchain_core.outputs import (
        ChatGeneration,
        ChatGenerationChunk,
        Generation,
        GenerationChunk,
    )
    from pydantic import BaseModel

_GENERATIONS: Final[dict[str, type[Generation]]] = {
    kind.__name__: kind
    for kind in (Generation, GenerationChunk, ChatGeneration, ChatGenerationChunk)
}
_MESSAGES: Final[dict[str, type[messages.BaseMessage]]] = {
    name: getattr(messages, name)
    for name in (
        "AIMessage", "AIMessageChunk", "ChatMessage", "ChatMessageChunk", "FunctionMessage",
        "FunctionMessageChunk", "HumanMessage", "HumanMessageChunk", "SystemMessage",
        "SystemMessageChunk", "ToolMessage", "ToolMessageChunk",
    )
}  # fmt: skip
_HIT: Final = "total_cost"
_HEADERS: Final = frozenset({"default_headers", "extra_headers", "headers"})
_MARK: Final = "---"  # stands before a call's arguments in LangChain's description of it
_NOT_PLAIN: Final = "LangChain: an answer that doesn't come back from plain data as it was"
_UNASKED: Final = 'LangChain: under sample="each", an answer that no lookup has asked for'


class _Stored(Struct, frozen=True, array_like=True):
    """One generation as it is stored."""

    kind: str
    fields: dict[str, Any]
    message_kind: str = ""
    message: dict[str, Any] = {}


class LangChainCache(BaseCache):
    """Answers of LangChain's models, in an `AsyncCache`.

    Prompt and model are two parts of the key, whole but for what LangChain notes on an answer of a
    cache. The sync methods work in any thread; on an event loop's own thread they hold that loop
    while the cache works in another: await the async ones there. LangChain asks here for whole
    answers alone: no streams, and no sharing of calls under way.

    Args:
        cache: An `AsyncCache` or `SyncCache`; None takes the one in force around each call; where
            there is none, every lookup is a miss.

    Raises:
        TypeError: It is no cache.
    """

    def __init__(self, cache: AsyncCache | SyncCache | None = None) -> None:
        self._framework = FrameworkCache(cache, "langchain")

    async def alookup(self, prompt: str, llm_string: str) -> list[Generation] | None:
        """Return the generations stored for a prompt and a model, or None.

        Raises:
            ReplayMiss: In mode "replay", nothing is stored.
        """
        cache = self._framework.serving(reading=True)
        return None if cache is None else await self._lookup(cache, prompt, llm_string)

    async def aupdate(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """Store generations, unless they hold what plain data can't: that is said once."""
        cache = self._framework.serving(reading=False)
        if cache is not None:
            await self._update(cache, prompt, llm_string, return_val)

    async def aclear(self, **kwargs: Any) -> None:  # noqa: ANN401 - LangChain's signature
        """Remove every entry of the cache's namespace, whoever stored it.

        Raises:
            StoreError: Some may still be there.
            CacheClosedError: The cache isn't open.
        """
        cache = self._framework.named()
        if cache is not None:
            await cache.clear()

    def lookup(self, prompt: str, llm_string: str) -> list[Generation] | None:
        """Return what `alookup` does, to a caller that can't await."""
        cache = self._framework.serving_thread(reading=True)
        return None if cache is None else background.call(self._lookup, cache, prompt, llm_string)

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """Store as `aupdate` does, for a caller that can't await."""
        cache = self._framework.serving_thread(reading=False)
        if cache is not None:
            background.call(self._update, cache, prompt, llm_string, return_val)

    def clear(self, **kwargs: Any) -> None:  # noqa: ANN401 - LangChain's signature
        """Clear as `aclear` does, for a caller that can't await."""
        cache = self._framework.named()
        if cache is not None:
            background.call(cache.clear)

    async def _lookup(
        self, cache: AsyncCache, prompt: str, llm_string: str
    ) -> list[Generation] | None:
        asked, values = _as_first_asked(prompt), values_of(cache)
        key = _key(asked, llm_string)
        samples, number = current_options().samples, current_options().sample
        if samples is not None:
            number = samples.next(values.digest(key))
        with options(sample=number):
            entry = await values.find(key)
            found = None if entry is None else _read(entry.body)
            if found and asked != prompt and not isinstance(found[0], ChatGeneration):
                found = None  # of a prompt that is text, and no messages
            self._framework.answered(cache, key, None if found is None else entry)
        if found is None and samples is not None:
            samples.keep(values.digest(key), number, llm_string)
        return found

    async def _update(
        self, cache: AsyncCache, prompt: str, llm_string: str, generations: Sequence[Generation]
    ) -> None:
        messages_asked = bool(generations) and isinstance(generations[0], ChatGeneration)
        key = _key(_as_first_asked(prompt) if messages_asked else prompt, llm_string)
        samples, number = current_options().samples, current_options().sample
        if samples is not None:
            # LangChain comes back with the very object that it has asked with.
            kept = samples.kept(values_of(cache).digest(key), llm_string)
            if kept is None:
                behind(cache).note_bypass(_UNASKED)
                return
            number = kept
        stored = _plain(generations)
        if stored is None:
            behind(cache).note_bypass(_NOT_PLAIN)
            return
        with options(sample=number):
            judging = _judging(llm_string, generations)
            await self._framework.store(cache, [(key, stored)], judging=judging)


def _key(prompt: str, llm_string: str) -> tuple[str, str, str]:
    return ("asynccache.langchain/1", prompt, _without_denied(llm_string))


def _without_denied(llm_string: str) -> str:
    """Return LangChain's description of a model and a call less what no key holds.

    It is the model as JSON and, behind a mark, the call's arguments as Python writes them: pairs of
    names and values. Headers stand among the model's arguments and the call's, and nowhere else:
    what a tool or a schema calls headers is part of the question. A part that can't be read stays.
    """
    if "headers" not in llm_string and not any(name in llm_string for name in DENIED_MEMBERS):
        return llm_string
    try:
        described, end = json.JSONDecoder().raw_decode(llm_string)
    except (ValueError, RecursionError):
        return llm_string
    model, arguments = llm_string[:end], llm_string[end:]
    given = described.get("kwargs") if isinstance(described, dict) else None
    if isinstance(given, dict):
        model = json.dumps({**described, "kwargs": _kept(given)}, sort_keys=True)
    if (read := _arguments(arguments)) is not None:
        arguments = f"{_MARK}{[*_kept(read).items()]}"
    return f"{model}{arguments}"


def _arguments(written: str) -> dict[Any, Any] | None:
    """Return the arguments of a call that LangChain has written; None if they can't be read."""
    if written.startswith(_MARK):
        with suppress(ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            return dict(ast.literal_eval(written.removeprefix(_MARK)))
    return None


def _judging(llm_string: str, generations: Sequence[Generation]) -> Judging | None:
    """Return what tells whether an answer is usable, as of the chat that a model was asked for."""
    if "response_format" not in llm_string and "tools" not in llm_string:
        return None
    asked: dict[Any, Any] = {"tools": [{}]}  # what can't be read is a class, or an object
    with suppress(ValueError, RecursionError):
        described, end = json.JSONDecoder().raw_decode(llm_string)
        given = described.get("kwargs") if isinstance(described, dict) else None
        bound = given.get("model_kwargs") if isinstance(given, dict) else None
        asked = {**asked, **(bound or {}), **(_arguments(llm_string[end:]) or {})}
    judge = judge_chat(asked)
    said = [_as_chat(one.message) for one in generations if isinstance(one, ChatGeneration)]
    if judge is None or not said:
        return None
    body = {"choices": [{"message": message} for message in said]}
    try:
        return judge.work([json.dumps(body).encode()], streamed=False)
    except (TypeError, ValueError):
        return None


def _as_chat(message: messages.BaseMessage) -> dict[str, Any]:
    """Return a message as an answer to a chat request holds it."""
    read = getattr(message, "tool_calls", [])
    called = [{"name": call["name"], "arguments": json.dumps(call["args"])} for call in read]
    unread = getattr(message, "invalid_tool_calls", [])
    called += [{"name": call["name"], "arguments": call["args"]} for call in unread]
    return {
        "content": str(message.text),
        "refusal": message.additional_kwargs.get("refusal"),
        "tool_calls": [{"function": function} for function in called],
    }


def _kept(arguments: dict[Any, Any]) -> dict[Any, Any]:
    """Return arguments of a model or a call less what no key holds, of headers or of the body."""
    kept: dict[Any, Any] = {}
    for name, value in arguments.items():
        if name in DENIED_MEMBERS:
            continue
        found = value
        if isinstance(value, dict) and name in _HEADERS:
            found = {header: v for header, v in value.items() if not is_denied_header(str(header))}
        elif isinstance(value, dict) and name == "extra_body":
            found = {member: v for member, v in value.items() if member not in DENIED_MEMBERS}
        elif isinstance(value, dict) and name == "model_kwargs":
            found = _kept(value)
        kept[name] = found
    return kept


def _as_first_asked(prompt: str) -> str:
    """Return messages as they were before any of them came out of a cache.

    LangChain notes a cost of 0 in the usage of an answer that a cache gave. It is part of the
    prompt from then on, which no model sees. What isn't messages, as LangChain writes them, stays.
    """
    if f'"{_HIT}": 0' not in prompt:
        return prompt
    try:
        written: Any = json.loads(prompt)
        if not prompt.startswith("[") or json.dumps(written) != prompt:
            return prompt
    except (ValueError, RecursionError):
        return prompt
    for message in written:
        try:
            fields = message["kwargs"]
            usage = fields["usage_metadata"]
            cost = usage[_HIT]
        except (TypeError, LookupError):
            continue
        if repr(cost) == "0":
            del usage[_HIT]
            if not usage:
                del fields["usage_metadata"]
    return json.dumps(written)


def _read(body: bytes) -> list[Generation] | None:
    """Return the generations that bytes hold; None if they are of another version or writer."""
    try:
        return [_built(item) for item in decode_value(body, list[_Stored])]
    except (ValueError, LookupError):
        return None


def _plain(generations: Sequence[Generation]) -> object:
    """Return generations as data, or None if they wouldn't come back as they are."""
    wanted = [_without_parsed(generation) for generation in generations]
    try:
        body = encode_value([_taken_apart(generation) for generation in wanted])
        back = decode_value(body, list[_Stored])
        lost = difference(wanted, [_built(item) for item in back])
    except (TypeError, ValueError, LookupError):
        return None
    return decode_value(body) if lost is None else None


def _taken_apart(generation: Generation) -> _Stored:
    fields = _fields(generation, _GENERATIONS)
    message = fields.pop("message", None)
    if message is None:
        return _Stored(type(generation).__name__, fields)
    del fields["text"]  # made from the message
    return _Stored(
        type(generation).__name__, fields, type(message).__name__, _fields(message, _MESSAGES)
    )


def _fields(value: BaseModel, kinds: dict[str, Any]) -> dict[str, Any]:
    """Return a model's fields.

    Raises:
        LookupError: Its class isn't on the list; a subclass of one that is may hold more.
    """
    if kinds.get(type(value).__name__) is not type(value):
        raise LookupError(type(value).__name__)
    return {**value.__dict__, **(value.__pydantic_extra__ or {})}


def _built(stored: _Stored) -> Generation:
    kind = _GENERATIONS[stored.kind]
    fields: dict[str, Any] = stored.fields
    if stored.message_kind:
        message: Any = _MESSAGES[stored.message_kind](**stored.message)
        fields = {**fields, "message": message}
    return kind(**fields)


def _without_parsed(generation: Generation) -> Generation:
    """Return a generation whose parsed answer, an object of the user's class, is data.

    LangChain builds the object anew from it, by the schema that the caller asked for.
    """
    message = getattr(generation, "message", None)
    if not isinstance(message, messages.AIMessage):
        return generation
    parsed: object = message.additional_kwargs.get("parsed")
    if not isinstance(parsed, BaseModel):
        return generation
    plain = parsed.model_dump(mode="json", by_alias=True, round_trip=True)
    data = {**message.additional_kwargs, "parsed": plain}
    changed = message.model_copy(update={"additional_kwargs": data})
    return generation.model_copy(update={"message": changed})
