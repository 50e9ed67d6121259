"""Embeddings, input by input: only what isn't known goes upstream, in one call, and is shared.

Each input's embedding is an entry of its own, whatever inputs it came with. What the server said
beside them (model, usage) is kept with each. It is given again where the very same inputs are asked
for again; everywhere else, usage is that of the inputs that were really sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from asynccache.cache import events
from asynccache.cache.settings import Settings
from asynccache.core.bulk import BulkCall, fetch_many
from asynccache.core.calls import Answer, CallRequest, Fetched
from asynccache.core.counters import Outcome
from asynccache.core.flight import Caller, ErrorScope, NotSharedError
from asynccache.entries.entry import Entry, Meta
from asynccache.keys.canonical import canonical_json
from asynccache.keys.key import KEY_BYTES
from asynccache.openai.client import sdk, sdk_responses
from asynccache.openai.client.body import (
    FrozenArguments,
    RequestBody,
    body_of,
    body_of_arguments,
    copied,
)
from asynccache.openai.client.cached_method import Arguments, CachedMethod
from asynccache.openai.client.client_cache import ClientCache
from asynccache.openai.client.lookup import CallOptions, Lookup, ResultForm
from asynccache.openai.client.outbound import PAST, OutboundCheck, is_beneath
from asynccache.openai.client.replay import is_buildable, mark, request_id
from asynccache.openai.client.upstream import meta_of
from asynccache.openai.embeddings import assembly
from asynccache.openai.embeddings.inputs import ENCODE, inputs_of, keys_of, shares_of
from asynccache.providers.facts import Facts
from asynccache.runtime.waiters import WaitedTooLongError

MakeCall = Callable[[Any], Awaitable[Any]]
"""Makes the SDK's call for an ``input``, and returns its raw response."""

_OTHER_BATCH: Final = bytes(KEY_BYTES)  # of a call for some of a caller's inputs: no request's key
_BREATH: Final = 32  # inputs, some 0.1 ms of lookups, between two looks at the turn's time


class EmbeddingsMethod(CachedMethod):
    """``embeddings.create``."""

    whole = False  # the key of a list of one input is that input's own

    def _body(self, settings: Settings, kwargs: Arguments) -> RequestBody | None:
        if sdk.is_given(kwargs.get("encoding_format", sdk.OMIT)):
            return body_of_arguments(kwargs, self._endpoint.params, settings)
        shown = {**kwargs, "encoding_format": "base64"}  # as the SDK sends it
        body = body_of_arguments(shown, self._endpoint.params, settings)
        del shown["encoding_format"]
        kwargs.update(shown)  # what was an iterator is a list now
        return body

    def _want(self, kwargs: Arguments, headers: Any) -> ResultForm:
        chosen = kwargs.get("encoding_format", sdk.OMIT)
        return self._finished(headers, lambda found: assembly.decoded(found, chosen))

    async def _fetch(self, asked: Lookup, wanted: ResultForm, kwargs: Arguments) -> Any:
        def prepare() -> MakeCall:
            sent = FrozenArguments(kwargs)

            def make(value: Any) -> Awaitable[Any]:
                arguments = sent.arguments()
                extra: dict[str, Any] = arguments.get("extra_body") or {}
                (extra if "input" in extra else arguments)["input"] = value
                return self._original(**arguments)

            return make

        decode = not sdk.is_given(kwargs.get("encoding_format", sdk.OMIT))
        asking = self._asking(kwargs)
        job = EmbeddingJob(
            self._exchange, asked, wanted, asking, prepare,
            past=lambda: self._original(**kwargs), decode=decode,
        )  # fmt: skip
        return await job.result()


class EmbeddingJob:
    """One call for embeddings.

    Args:
        exchange: The wrapped client's.
        asked: What for; its key is that of all inputs together.
        wanted: As what.
        asking: The rest of the call.
        prepare: Copies the call's arguments and returns what makes it for some of its inputs;
            called at most once, before anything is awaited upstream.
        past: Makes the call as it came, where nobody else's answer would do.
        decode: Whether vectors that travelled as text are to be numbers; None where only the SDK
            knows.
    """

    def __init__(
        self,
        exchange: ClientCache,
        asked: Lookup,
        wanted: ResultForm,
        asking: CallOptions,
        prepare: Callable[[], MakeCall],
        *,
        past: Callable[[], Awaitable[Any]],
        decode: bool | None = None,
    ) -> None:
        self._exchange = exchange
        self._asked = asked
        self._wanted = wanted
        self._asking = asking
        self._prepare = prepare
        self._past = past
        self._decode = decode
        self._data = asked.body.data
        self._inputs = inputs_of(self._data.get("input"))
        self._keys = keys_of(asked, self._inputs)
        self._heads: list[bytes] = []  # of the answers to what was sent for this call
        self._metas: list[Meta] = []  # of the same
        self._sendings: dict[bytes, OutboundCheck] = {}
        self._sizes: dict[bytes, int] = {}  # inputs that went upstream together with a key's
        self._make: MakeCall | None = None

    async def result(self) -> Any:
        """Return what the caller gets."""
        asked, engine = self._asked, self._asked.engine
        if is_beneath(asked.key):
            return await self._past()
        observer, model = asked.cache.settings.observer, asked.body.data.get("model")
        watch = events.watch(observer, asked.endpoint.path, model, asked.key)
        try:
            found = await self._at_hand()
            missing = [key for key in dict.fromkeys(self._keys) if key not in found]
            if missing:
                found |= await self._fetch(missing)
            whole = await self._unsplit(found)
        except NotSharedError:
            return await self._exchange.unshared(asked, self._past)
        except WaitedTooLongError:
            error = sdk.timed_out(asked.address.url)
            if watch is not None:
                watch.failed(error)
            raise error from None
        except BaseException as exc:
            if watch is not None:
                watch.failed(exc)
            raise
        how = engine.served_many(found.values())
        entries = [found[key].entry for key in self._keys]
        told = whole or self._told(entries)
        if watch is not None:
            watch.served(how, told, asked.cache.now())
        if whole is not None:
            return self._exchange.result(asked, self._wanted, whole, how)
        return self._built(entries, told, how)

    def _prepared(self) -> MakeCall:
        """Copy the call before anything is awaited, as its caller may change it then."""
        if self._make is None:
            self._make = self._prepare()
            self._data = copied(self._data)()
            self._inputs = inputs_of(self._data.get("input"))
        return self._make

    async def _at_hand(self) -> dict[bytes, Fetched]:
        """Return the entries that can be read without waiting, in slices of the loop's time."""
        asked, engine = self._asked, self._asked.engine
        found: dict[bytes, Fetched] = {}
        for at, key in enumerate(self._keys):
            if not (at + 1) % _BREATH and engine.pacer.spent():
                self._prepared()
                await engine.pacer.slot()
            entry = engine.inline(asked.mode, asked.namespace, key)
            if entry is not None:
                found[key] = Fetched(entry, "hit")
        return found

    # -- what isn't at hand ------------------------------------------------------------------

    async def _fetch(self, missing: Sequence[bytes]) -> dict[bytes, Fetched]:
        asked = self._asked
        caller = self._exchange.caller(asked.address, self._asking)
        caller = replace(caller, request=asked.key)
        self._prepared()
        engine = asked.engine
        convoy = BulkCall(self._send, spawn=engine.spawn, counters=engine.counters)
        calls = {key: self._call(key, caller, convoy) for key in missing}
        return await fetch_many(engine, calls, caller, convoy)

    def _call(self, key: bytes, caller: Caller, convoy: BulkCall) -> CallRequest:
        asked, settings = self._asked, self._asked.cache.settings

        def unchanged() -> bool:
            return self._exchange.sent(self._sendings[key])

        def scope(error: BaseException) -> ErrorScope:
            # What is wrong with one input is no fault of those that others ask for too.
            whose = sdk.scope_of(error)
            if whose == "all" and self._sizes.get(key, 1) > 1 and sdk.is_refusal(error):
                return "request"
            return whose

        return CallRequest(
            namespace=asked.namespace,
            key=key,
            mode=asked.mode,
            upstream=convoy.upstream,
            scope=scope,
            caller=caller,
            ttl=asked.cache.ttl_in_force(None),
            store_if=asked.cache.rule_in_force(),
            canonical=asked.body.canonical if len(self._inputs) == 1 else None,
            facts=asked.prefix.digests,
            keep_request=settings.keep_requests,
            about=asked.about if asked.mode == "replay" else "",
            unchanged=unchanged,
            alone=False,
            waiting=lambda: convoy.decided(key),
        )

    async def _send(self, keys: list[bytes]) -> list[Answer]:
        """Make the call for some of the inputs, and return each one's answer."""
        asked, given = self._asked, self._data["input"]
        whole = set(keys) == set(self._keys)
        if whole:  # as the caller gave them, repeated ones too
            places, value = list(range(len(self._keys))), given
        else:
            first = {key: at for at, key in reversed(list(enumerate(self._keys)))}
            places = sorted(first[key] for key in keys)
            value = [self._inputs[at] for at in places]
        data = {**self._data, "input": value}
        body = body_of(data, canonical_json(data), asked.cache.settings)
        sending = OutboundCheck(
            lambda options: self._exchange.matches(asked, body, options), asked.key
        )
        for key in keys:
            self._sendings[key], self._sizes[key] = sending, len(places)
        content, meta, error = await self._called(sending, value)
        batch = asked.key if whole else _OTHER_BATCH
        found = assembly.split(content, len(places))
        if found is None:  # for `_unsplit`
            items = [content] * len(places)
        else:
            head, items = found
            batch += head
            self._heads.append(head)
            self._metas.append(meta)
        shares = shares_of(meta.input_tokens, [len(ENCODE(self._inputs[at])) for at in places])
        answers = {
            self._keys[at]: Answer(
                meta=replace(meta, input_tokens=share, batch=batch),
                chunks=(item,),
                error=error,
                complete=found is not None,
            )
            for at, item, share in zip(places, items, shares, strict=True)
        }
        return [answers[key] for key in keys]

    async def _called(self, sending: OutboundCheck, value: Any) -> tuple[bytes, Meta, bool]:
        """Make a call; return its answer, the answer's head, and whether it carries an error."""
        make = self._prepared()
        response = (await sending.over(lambda: make(value))).http_response
        content: bytes = response.content
        facts = Facts()
        facts.read(content)
        return content, meta_of(facts, response, "json"), facts.error

    async def _unsplit(self, found: Mapping[bytes, Fetched]) -> Entry | None:
        """Return an answer as it came, if what was got can't be told apart by inputs.

        Such an answer is shared with those who asked for just the same, and not stored. Who shared
        some inputs only asks for all of its own.
        """
        asked = self._asked
        odd = [one.entry for one in found.values() if len(one.entry.meta.batch) == KEY_BYTES]
        if not odd:
            return None
        whole = next((entry for entry in odd if entry.meta.batch == asked.key), None)
        if whole is not None:
            content, meta = whole.body, whole.meta
        else:
            counters = asked.engine.counters
            counters.upstream_calls += 1
            try:
                content, meta, _ = await self._called(PAST, self._data["input"])
            except Exception:
                counters.upstream_errors += 1
                raise
            counters.tokens_paid += meta.input_tokens
        return Entry(asked.key, 0, 0, replace(meta, batch=b""), (content,))

    # -- from entries to a result ------------------------------------------------------------

    def _head(self, entries: Sequence[Entry]) -> bytes:
        """Return the answer without its items."""
        if self._heads:
            return assembly.combined(self._heads)
        batches = {entry.meta.batch for entry in entries}
        batch = entries[0].meta.batch
        head = batch[KEY_BYTES:]
        if len(batches) == 1 and batch.startswith(self._asked.key):
            return head  # the very same inputs as then
        return assembly.unpaid(head)

    def _told(self, entries: Sequence[Entry]) -> Entry:
        """Return what is to be said of an answer: its key, age, tokens, request."""
        meta = (self._metas or [entries[0].meta])[0]
        seconds = sum(entry.meta.seconds for entry in entries)
        tokens = sum(entry.meta.input_tokens for entry in entries)
        meta = replace(meta, input_tokens=tokens, seconds=seconds)
        return Entry(self._asked.key, min(entry.created for entry in entries), 0, meta, ())

    def _built(self, entries: Sequence[Entry], told: Entry, how: Outcome) -> Any:
        wanted, meta = self._wanted, told.meta
        head, items = self._head(entries), [entry.body for entry in entries]
        parts = tuple(dict.fromkeys(self._keys))
        exchange = self._exchange
        if self._decode is not None and not wanted.raw and is_buildable(exchange.client, meta):
            built = assembly.embedding_response(head, items, decode=self._decode)
            if built is not None:
                sdk_responses.note_request_id(built, request_id(meta))
                mark(built, exchange.status(self._asked, told, how, parts))
                return built
        whole = replace(told, chunks=(assembly.assembled(head, items),))
        return exchange.result(self._asked, wanted, whole, how, parts=parts)
