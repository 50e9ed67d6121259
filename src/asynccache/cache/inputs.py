"""Requests for several inputs: only what isn't known goes upstream, in one call, and is shared.

Each input's answer is an entry of its own, whatever inputs it came with. What the server said
beside them (model, usage) is kept with each. It is given again where the very same inputs are asked
for again; everywhere else, usage is that of the inputs that were really sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from asynccache.cache.events import watch
from asynccache.cache.lifecycle import Scope
from asynccache.core.bulk import BulkCall
from asynccache.core.calls import Answer, CallRequest, Fetched
from asynccache.core.counters import Outcome
from asynccache.core.flight import Caller, ErrorScope, NotSharedError
from asynccache.entries.entry import Entry, Meta
from asynccache.keys.key import KEY_BYTES

_OTHER_BATCH: Final = bytes(KEY_BYTES)  # of a call for some of a caller's inputs: no request's key


class InputsRequest(Struct, frozen=True, kw_only=True):
    """One request for several inputs."""

    scope: Scope
    path: str
    """The endpoint's, for people to read."""
    model: object
    provider: str
    key: bytes
    """Of all inputs together."""
    keys: list[bytes]
    """Of each input."""
    canonical: bytes
    """The body's part of the whole request's key."""
    digests: dict[str, int]
    """Of the rest of the request."""
    paths: Callable[[], dict[str, int]]
    """Makes digests of its parts."""
    about: str
    """What is asked for, to be read in an error."""


class ServerAnswer(Struct, frozen=True):
    """What a server answered to a request for all inputs, or for some."""

    body: bytes
    meta: Meta
    error: bool
    received: object


class InputsSender(Protocol):
    """What a way in does for a request: it knows how the request is sent."""

    def caller(self) -> Caller:
        """Return whose request it is."""
        ...

    def prepare(self) -> None:
        """Copy the request before anything is awaited, as its caller may change it then."""
        ...

    async def until_answered(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Make attempts as the way in makes them."""
        ...

    async def send(self, places: Sequence[int] | None, keys: Sequence[bytes]) -> ServerAnswer:
        """Send the request for entries.

        Args:
            places: Which inputs to send; None for all, as they were given.
            keys: The keys of these.
        """
        ...

    async def send_past(self) -> ServerAnswer:
        """Send the whole request, and for nobody else."""
        ...

    def size(self, place: int) -> int:
        """Return how much of the request an input takes up."""
        ...

    def scope_of(self, error: BaseException, *, together: bool) -> ErrorScope:
        """Return for whom an error is true; ``together`` if several inputs were sent."""
        ...

    def is_sent(self, key: bytes) -> bool:
        """Tell whether what was sent is what a key stands for."""
        ...


class InputsForm(Protocol):
    """What answers are made of."""

    def split(self, body: bytes, count: int) -> tuple[bytes, list[bytes]] | None:
        """Return an answer's head and its items; None where they can't be told apart."""
        ...

    def combined(self, heads: Sequence[bytes]) -> bytes:
        """Return the head of an answer to inputs that were sent in several calls."""
        ...

    def unpaid(self, head: bytes) -> bytes:
        """Return the head of an answer for which nothing was sent."""
        ...


class InputsAnswer(Struct, frozen=True, kw_only=True):
    """The answer to a request for several inputs."""

    outcome: Outcome
    told: Entry
    """What is to be said of it: key, age, tokens, request. Its body is there if it came whole."""
    received: object
    head: bytes = b""
    items: tuple[bytes, ...] = ()
    """In order; none where the answer came whole, as nobody can tell its items apart."""
    parts: tuple[bytes, ...] = ()
    """The keys of the entries."""


class InputsJob:
    """One request for several inputs.

    Args:
        asked: The request.
        sender: Sends it.
        form: What answers are made of.
    """

    def __init__(self, asked: InputsRequest, sender: InputsSender, form: InputsForm) -> None:
        self._asked = asked
        self._sender = sender
        self._form = form
        self._heads: list[bytes] = []  # of the answers to what was sent for this request
        self._metas: list[Meta] = []  # of the same
        self._sizes: dict[bytes, int] = {}  # inputs that went upstream together with a key's

    async def answer(self) -> InputsAnswer | None:
        """Return the answer; None if a loop stands still that would have to bring it.

        Raises:
            NotSharedError: A flight was joined whose answer is its starter's alone.
            BaseException: What the call upstream raised.
        """
        asked, scope = self._asked, self._asked.scope
        watcher = watch(
            scope.cache.settings, asked.path, asked.model, asked.key, asked.paths,
            provider=asked.provider,
        )  # fmt: skip
        try:
            found = await self._at_hand()
            missing = [key for key in dict.fromkeys(asked.keys) if key not in found]
            if any(map(scope.cache.stands_still, missing)):
                return None
            if missing:
                await self._fetch(missing, found)
            whole = await self._unsplit(found)
        except NotSharedError:
            raise
        except BaseException as exc:
            if watcher is not None:
                watcher.failed(exc)
            raise
        how = scope.engine.count_together(found.values())
        entries = [found[key].entry for key in asked.keys]
        told = whole or self._told(entries)
        if watcher is not None:
            watcher.served(how, told, scope.now())
        received = next((one.received for one in found.values() if one.outcome == how), None)
        if whole is not None:
            return InputsAnswer(outcome=how, told=told, received=received)
        return InputsAnswer(
            outcome=how,
            told=told,
            received=received,
            head=self._head(entries),
            items=tuple(entry.body for entry in entries),
            parts=tuple(dict.fromkeys(asked.keys)),
        )

    async def _at_hand(self) -> dict[bytes, Fetched]:
        """Return the entries that can be read without waiting, in slices of the loop's time."""
        scope, engine = self._asked.scope, self._asked.scope.engine
        found: dict[bytes, Fetched] = {}
        for at, key in enumerate(self._asked.keys):
            if engine.pacer.is_due(at):
                self._sender.prepare()
                await engine.pacer.slot()
            entry = engine.peek(scope.mode, scope.namespace, key)
            if isinstance(entry, Entry):
                found[key] = Fetched(entry, "hit")
        return found

    # -- what isn't at hand ------------------------------------------------------------------

    async def _fetch(self, missing: Sequence[bytes], found: dict[bytes, Fetched]) -> None:
        """Add what isn't at hand, in as many attempts as the way in makes."""
        engine = self._asked.scope.engine
        caller = replace(self._sender.caller(), request=self._asked.key)
        self._sender.prepare()

        async def attempt() -> None:
            bulk = BulkCall(engine, self._send, lambda key: self._request(key, caller, bulk))
            await bulk.fetch(missing, caller, found)

        await self._sender.until_answered(attempt)

    def _request(self, key: bytes, caller: Caller, bulk: BulkCall) -> CallRequest:
        asked, scope, sender = self._asked, self._asked.scope, self._sender
        return CallRequest(
            namespace=scope.namespace,
            key=key,
            mode=scope.mode,
            upstream=bulk.upstream,
            scope=lambda error: sender.scope_of(error, together=self._sizes.get(key, 1) > 1),
            caller=caller,
            ttl=scope.ttl,
            store_if=scope.store_if,
            canonical=asked.canonical if len(asked.keys) == 1 else None,
            facts=asked.digests,
            keep_request=scope.cache.settings.keep_requests,
            about=asked.about if scope.mode == "replay" else "",
            unchanged=lambda: sender.is_sent(key),
            alone=False,
            waiting=lambda: bulk.decided(key),
        )

    async def _send(self, keys: list[bytes]) -> list[Answer]:
        """Send the request for some of the inputs, and return each one's answer."""
        asked = self._asked
        whole = set(keys) == set(asked.keys)
        if whole:  # as the caller gave them, repeated ones too
            places = list(range(len(asked.keys)))
        else:
            first = {key: at for at, key in reversed(list(enumerate(asked.keys)))}
            places = sorted(first[key] for key in keys)
        self._sizes.update(dict.fromkeys(keys, len(places)))
        sent = await self._sender.send(None if whole else places, keys)
        batch = asked.key if whole else _OTHER_BATCH
        found = self._form.split(sent.body, len(places))
        if found is None:  # for `_unsplit`
            items = [sent.body] * len(places)
        else:
            head, items = found
            batch += head
            self._heads.append(head)
            self._metas.append(sent.meta)
        shares = _shares(sent.meta.input_tokens, [self._sender.size(at) for at in places])
        answers = {
            asked.keys[at]: Answer(
                meta=replace(sent.meta, input_tokens=share, batch=batch),
                chunks=(item,),
                error=sent.error,
                complete=found is not None,
                received=sent.received,
            )
            for at, item, share in zip(places, items, shares, strict=True)
        }
        return [answers[key] for key in keys]

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
            body, meta = whole.body, whole.meta
        else:
            counters = asked.scope.engine.counters
            counters.upstream_calls += 1
            try:
                sent = await self._sender.send_past()
            except Exception:
                counters.upstream_errors += 1
                raise
            body, meta = sent.body, sent.meta
            counters.count_paid(meta)
        return Entry(asked.key, 0, 0, replace(meta, batch=b""), (body,))

    # -- from entries to an answer -----------------------------------------------------------

    def _head(self, entries: Sequence[Entry]) -> bytes:
        """Return the answer without its items."""
        if self._heads:
            return self._form.combined(self._heads)
        batches = {entry.meta.batch for entry in entries}
        batch = entries[0].meta.batch
        head = batch[KEY_BYTES:]
        if len(batches) == 1 and batch.startswith(self._asked.key):
            return head  # the very same inputs as then
        return self._form.unpaid(head)

    def _told(self, entries: Sequence[Entry]) -> Entry:
        """Return what is to be said of an answer: its key, age, tokens, request."""
        meta = (self._metas or [entries[0].meta])[0]
        seconds = sum(entry.meta.seconds for entry in entries)
        tokens = sum(entry.meta.input_tokens for entry in entries)
        meta = replace(meta, input_tokens=tokens, seconds=seconds)
        return Entry(self._asked.key, min(entry.created for entry in entries), 0, meta, ())


def _shares(total: int, sizes: Sequence[int]) -> list[int]:
    """Return a number split in proportion to sizes; the parts sum up to it."""
    whole = sum(sizes)
    shares: list[int] = []
    seen = given = 0
    for size in sizes:
        seen += size
        upto = total * seen // whole
        shares.append(upto - given)
        given = upto
    return shares
