"""Embeddings, input by input: only what isn't known goes upstream, in one call, and is shared.

Each input's embedding is an entry of its own, whatever inputs it came with. What the server said
beside them (model, usage) is kept with each. It is given again where the very same inputs are asked
for again; everywhere else, usage is that of the inputs that were really sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from asynccache.cache.facade import (
    Answer,
    BulkCall,
    Caller,
    CallRequest,
    ErrorScope,
    Fetched,
    NotSharedError,
    Outcome,
    watch,
)
from asynccache.entries.entry import Entry, Meta
from asynccache.errors import NotCanonicalError
from asynccache.keys.canonical import canonical_json
from asynccache.keys.key import KEY_BYTES
from asynccache.openai.client import sdk, sdk_responses
from asynccache.openai.client.attempts import Attempts
from asynccache.openai.client.cached_method import copied
from asynccache.openai.client.call import KeyedCall, RawCall
from asynccache.openai.client.client_cache import CHANGED, STANDS_STILL, ClientCache
from asynccache.openai.client.parsing import mark
from asynccache.openai.client.replay import is_buildable, request_id
from asynccache.openai.client.upstream import OutboundCheck, check_of, meta_of
from asynccache.openai.embeddings import assembly
from asynccache.openai.embeddings.inputs import ENCODE, inputs_of, keys_of, shares_of
from asynccache.providers.answers import Received
from asynccache.providers.bodies import keyed_form
from asynccache.providers.sending import PAST, Sending, is_beneath

_OTHER_BATCH: Final = bytes(KEY_BYTES)  # of a call for some of a caller's inputs: no request's key


async def answered(client: ClientCache, call: KeyedCall) -> Any:
    """Return the result of a call for embeddings."""
    if "input" not in call.data:  # the server says best what it thinks of it
        return await client.past(call, f"{call.endpoint.path}: it has no input")
    if is_beneath(call.key):
        return await call.way.past(call.given)
    try:
        job = _Job(client, call)
    except NotCanonicalError as exc:  # of one input alone, as a normalizer sees it
        return await client.past(call, f"{call.endpoint.path}: {exc}")
    return await job.result()


class _Job:
    """One call for embeddings.

    Args:
        client: The client's cache.
        call: The call; its key is that of all inputs together.
    """

    def __init__(self, client: ClientCache, call: KeyedCall) -> None:
        self._client = client
        self._call = call
        self._data = call.data
        self._inputs = inputs_of(self._data.get("input"))
        self._keys = keys_of(call, self._inputs)
        self._heads: list[bytes] = []  # of the answers to what was sent for this call
        self._metas: list[Meta] = []  # of the same
        self._checks: dict[bytes, OutboundCheck] = {}
        self._sizes: dict[bytes, int] = {}  # inputs that went upstream together with a key's
        self._attempts = Attempts(client.client, call)
        self._copied = False

    async def result(self) -> Any:
        """Return what the caller gets."""
        client, call = self._client, self._call
        scope, path = call.scope, call.endpoint.path
        model, settings = call.data.get("model"), scope.cache.settings
        watcher = watch(settings, path, model, call.key, call.paths, provider=client.provider)
        try:
            found = await self._at_hand()
            missing = [key for key in dict.fromkeys(self._keys) if key not in found]
            if any(map(scope.cache.stands_still, missing)):
                return await client.past(call, STANDS_STILL)
            if missing:
                await self._fetch(missing, found)
            whole = await self._unsplit(found)
        except NotSharedError:
            return await client.past(call, f"{path}: {CHANGED}")
        except BaseException as exc:
            if watcher is not None:
                watcher.failed(exc)
            raise
        how = scope.engine.count_together(found.values())
        entries = [found[key].entry for key in self._keys]
        told = whole or self._told(entries)
        if watcher is not None:
            watcher.served(how, told, scope.now())
        received = next((one.received for one in found.values() if one.outcome == how), None)
        if whole is not None:
            retries = self._attempts.retries
            return client.result(call, whole, how, received=received, retries=retries)
        return self._built(entries, told, how, received)

    def _prepared(self) -> RawCall:
        """Copy the call before anything is awaited, as its caller may change it then."""
        if not self._copied:
            self._copied = True
            self._data = copied(self._data)()
            self._inputs = inputs_of(self._data.get("input"))
        return self._attempts.make()

    async def _at_hand(self) -> dict[bytes, Fetched]:
        """Return the entries that can be read without waiting, in slices of the loop's time."""
        scope, engine = self._call.scope, self._call.scope.engine
        found: dict[bytes, Fetched] = {}
        for at, key in enumerate(self._keys):
            if engine.pacer.is_due(at):
                self._prepared()
                await engine.pacer.slot()
            entry = engine.peek(scope.mode, scope.namespace, key)
            if isinstance(entry, Entry):
                found[key] = Fetched(entry, "hit")
        return found

    # -- what isn't at hand ------------------------------------------------------------------

    async def _fetch(self, missing: Sequence[bytes], found: dict[bytes, Fetched]) -> None:
        """Add what isn't at hand, in as many attempts as the SDK makes."""
        engine = self._call.scope.engine
        caller = replace(self._client.caller(self._call), request=self._call.key)
        self._prepared()

        async def attempt() -> None:
            bulk = BulkCall(engine, self._send, lambda key: self._request(key, caller, bulk))
            await bulk.fetch(missing, caller, found)

        await self._attempts.until_answered(attempt)

    def _request(self, key: bytes, caller: Caller, bulk: BulkCall) -> CallRequest:
        call, scope = self._call, self._call.scope

        def true_for(error: BaseException) -> ErrorScope:
            # What is wrong with one input is no fault of those that others ask for too.
            whose = sdk.scope_of(error)
            if whose == "all" and self._sizes.get(key, 1) > 1 and sdk.is_refusal(error):
                return "request"
            return whose

        return CallRequest(
            namespace=scope.namespace,
            key=key,
            mode=scope.mode,
            upstream=bulk.upstream,
            scope=true_for,
            caller=caller,
            ttl=scope.ttl,
            store_if=scope.store_if,
            canonical=call.canonical if len(self._inputs) == 1 else None,
            facts=call.prefix.digests,
            keep_request=scope.cache.settings.keep_requests,
            about=call.about if scope.mode == "replay" else "",
            unchanged=lambda: self._client.is_sent(self._checks[key]),
            alone=False,
            waiting=lambda: bulk.decided(key),
        )

    async def _send(self, keys: list[bytes]) -> list[Answer]:
        """Make the call for some of the inputs, and return each one's answer."""
        call, given = self._call, self._data["input"]
        whole = set(keys) == set(self._keys)
        if whole:  # as the caller gave them, repeated ones too
            places, value = list(range(len(self._keys))), given
        else:
            first = {key: at for at, key in reversed(list(enumerate(self._keys)))}
            places = sorted(first[key] for key in keys)
            value = [self._inputs[at] for at in places]
        data = {**self._data, "input": value}
        settings = call.scope.cache.settings
        keyed, _ = keyed_form(
            data,
            canonical_json(data),
            operation=call.endpoint.operation,
            ignore=settings.ignore,
            normalize=settings.normalize,
        )
        check = check_of(self._client.client, call, keyed, self._attempts)
        for key in keys:
            self._checks[key], self._sizes[key] = check, len(places)
        content, meta, error, received = await self._called(check, value)
        batch = call.key if whole else _OTHER_BATCH
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
                received=received,
            )
            for at, item, share in zip(places, items, shares, strict=True)
        }
        return [answers[key] for key in keys]

    async def _called(self, check: Sending, value: Any) -> tuple[bytes, Meta, bool, Received]:
        """Make a call; return its answer, head, whether it is an error, and what came with it."""
        make = self._prepared()
        response = (await check.over(lambda: make(value))).http_response
        content: bytes = response.content
        facts = self._call.endpoint.operation.facts()
        facts.read(content)
        received = sdk_responses.received(response, self._call.form.raw)
        return content, meta_of(facts, response, "json"), facts.error, received

    async def _unsplit(self, found: Mapping[bytes, Fetched]) -> Entry | None:
        """Return an answer as it came, if what was got can't be told apart by inputs.

        Such an answer is shared with those who asked for just the same, and not stored. Who shared
        some inputs only asks for all of its own.
        """
        call = self._call
        odd = [one.entry for one in found.values() if len(one.entry.meta.batch) == KEY_BYTES]
        if not odd:
            return None
        whole = next((entry for entry in odd if entry.meta.batch == call.key), None)
        if whole is not None:
            content, meta = whole.body, whole.meta
        else:
            counters = call.scope.engine.counters
            counters.upstream_calls += 1
            try:
                content, meta, *_ = await self._called(PAST, self._data["input"])
            except Exception:
                counters.upstream_errors += 1
                raise
            counters.count_paid(meta)
        return Entry(call.key, 0, 0, replace(meta, batch=b""), (content,))

    # -- from entries to a result ------------------------------------------------------------

    def _head(self, entries: Sequence[Entry]) -> bytes:
        """Return the answer without its items."""
        if self._heads:
            return assembly.combined(self._heads)
        batches = {entry.meta.batch for entry in entries}
        batch = entries[0].meta.batch
        head = batch[KEY_BYTES:]
        if len(batches) == 1 and batch.startswith(self._call.key):
            return head  # the very same inputs as then
        return assembly.unpaid(head)

    def _told(self, entries: Sequence[Entry]) -> Entry:
        """Return what is to be said of an answer: its key, age, tokens, request."""
        meta = (self._metas or [entries[0].meta])[0]
        seconds = sum(entry.meta.seconds for entry in entries)
        tokens = sum(entry.meta.input_tokens for entry in entries)
        meta = replace(meta, input_tokens=tokens, seconds=seconds)
        return Entry(self._call.key, min(entry.created for entry in entries), 0, meta, ())

    def _built(self, entries: Sequence[Entry], told: Entry, how: Outcome, received: object) -> Any:
        client, call, form = self._client, self._call, self._call.form
        head, items = self._head(entries), [entry.body for entry in entries]
        parts = tuple(dict.fromkeys(self._keys))
        if form.decode is not None and not form.raw and is_buildable(client.client, told.meta):
            built = assembly.embedding_response(head, items, decode=form.decode)
            if built is not None:
                sdk_responses.note_request_id(built, request_id(told.meta))
                mark(built, client.status(call, told, how, parts))
                return built
        whole = replace(told, chunks=(assembly.assembled(head, items),))
        retries = self._attempts.retries
        return client.result(call, whole, how, received=received, parts=parts, retries=retries)
