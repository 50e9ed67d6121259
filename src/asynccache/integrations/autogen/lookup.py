"""One call to a cached client of AutoGen's: its key, and its answer, whole or as it comes."""

# AutoGen isn't there where this is checked, and what it gives is then unknown.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from autogen_core import CancellationToken, Image
from autogen_core.models import ChatCompletionClient, CreateResult
from msgspec import Struct

from asynccache.cache.facade import (
    AsyncCache,
    Bypass,
    Caller,
    CallRequest,
    CallWatch,
    Fetched,
    Mode,
    Reader,
    Scope,
    Status,
    resolve,
    watch,
)
from asynccache.entries.entry import Entry
from asynccache.errors import NotCanonicalError
from asynccache.integrations.autogen.calls import asked, copied, decoded, judge_for, scope_of
from asynccache.integrations.autogen.identity import (
    ClientIdentity,
    UnknownClientError,
    request_of,
)
from asynccache.keys.canonical import canonical_json, without_paths
from asynccache.keys.key import Namespace, Prefix

T = TypeVar("T")


class AutoGenLookup(Struct, frozen=True):
    """What a call asks for: which key, in which cache."""

    scope: Scope
    path: str
    prefix: Prefix
    canonical: bytes
    key: bytes
    arguments: Mapping[str, Any]
    """Those that the key was made of: the caller's own, or copies."""
    caller: Caller
    watch: CallWatch | None

    async def whole(
        self, client: ChatCompletionClient, token: CancellationToken | None
    ) -> CreateResult:
        """Return the answer to a `create`."""
        try:
            fetched, last, reader = await self._answer(client, CancellationWatch(token))
            if reader is not None:
                reader.close()
            result = self._marked(last, fetched)
        except BaseException as exc:
            self._failed(exc)
            raise
        self._served(fetched)
        return result

    async def items(
        self, client: ChatCompletionClient, token: CancellationToken | None
    ) -> AsyncGenerator[str | CreateResult, None]:
        """Yield the answer to a `create_stream`, item by item."""
        cancellation, pacer = CancellationWatch(token), self.scope.engine.pacer
        fetched: Fetched | None = None
        reader: Reader | None = None
        try:
            fetched, _, reader = await self._answer(client, cancellation)
            stored = iter(fetched.entry.chunks if reader is None else ())
            while True:
                cancellation.check()
                if pacer.spent():
                    await pacer.slot()
                if reader is None:
                    chunk = next(stored, None)
                else:
                    chunk = reader.next_ready() or await cancellation.wait(reader.next())
                    fetched = Fetched(reader.flight.entry or fetched.entry, fetched.outcome)
                if chunk is None:
                    return
                yield self._marked(decoded(chunk), fetched)
        except GeneratorExit:
            raise
        except BaseException as exc:
            fetched = None
            self._failed(exc)
            raise
        finally:
            if reader is not None:
                reader.close()
            if fetched is not None:
                self._served(fetched)

    async def _answer(
        self, client: ChatCompletionClient, cancellation: CancellationWatch
    ) -> tuple[Fetched, str | CreateResult | None, Reader | None]:
        """Return an answer and its last item, or a reader of what is still to come.

        An answer of another version of AutoGen is asked for anew.

        Raises:
            ValueError: It is of another version, and the mode doesn't allow asking.
        """
        cancellation.check()
        engine, mode = self.scope.engine, self.scope.mode
        peeked = engine.peek(mode, self.scope.namespace, self.key)
        entry = peeked if isinstance(peeked, Entry) else None
        # From here on others run, who may change the arguments.
        sent = copied(self.arguments) if entry is None else {}
        reader: Reader | None = None
        while True:
            if entry is not None:
                engine.count_hit(entry)
                fetched, entry = Fetched(entry, "hit"), None
            else:
                sent = sent or copied(self.arguments)
                call = self._call(client, sent, mode)
                fetched, reader = await cancellation.wait(engine.read(call))
            chunks = fetched.entry.chunks
            try:
                return fetched, decoded(chunks[-1]) if chunks else None, reader
            except ValueError as exc:
                if reader is not None:
                    reader.close()
                if fetched.outcome == "miss" or mode != "read_write":
                    reason = "the stored answer is of another version of autogen-core"
                    raise ValueError(reason) from exc
            engine.counters.flaws["mistyped"] += 1
            mode = "refresh"

    def _call(
        self, client: ChatCompletionClient, arguments: Mapping[str, Any], mode: Mode
    ) -> CallRequest:
        scope = self.scope
        return CallRequest(
            namespace=scope.namespace,
            key=self.key,
            mode=mode,
            upstream=functools.partial(asked, client, self.path, arguments),
            scope=scope_of,
            caller=self.caller,
            ttl=scope.ttl,
            store_if=scope.store_if,
            canonical=self.canonical,
            facts=self.prefix.digests,
            keep_request=scope.settings.keep_requests,
            judge=judge_for(arguments),
        )

    def _marked(self, item: Any, fetched: Fetched) -> Any:  # noqa: ANN401 - one of AutoGen's
        """Mark a result on its way to its caller: ``cached`` is for hits alone."""
        if isinstance(item, CreateResult):
            how, entry = fetched.outcome, fetched.entry
            if how == "hit":
                item.cached = True
            now = self.scope.now()
            status = Status(how, self.key, entry.created, now, self.scope.namespace)
            object.__setattr__(item, "_asynccache_status", status)
        return item

    def _served(self, fetched: Fetched) -> None:
        if self.watch is not None:
            self.watch.served(fetched.outcome, fetched.entry, self.scope.now())

    def _failed(self, error: BaseException) -> None:
        if self.watch is not None:
            self.watch.failed(error)


class CancellationWatch:
    """Ends a caller's wait when its token is cancelled. Whoever else waits goes on."""

    def __init__(self, token: CancellationToken | None) -> None:
        self._token = token
        self._waiting: asyncio.Future[Any] | None = None
        self._linked = False

    def check(self) -> None:
        """Raise CancelledError if the token was cancelled."""
        if self._token is not None and self._token.is_cancelled():
            raise asyncio.CancelledError("the cancellation token was cancelled")

    async def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for something until the token is cancelled."""
        if self._token is None:
            return await work
        self._waiting = task = asyncio.ensure_future(work)
        if not self._linked:  # once for all chunks of a stream: tokens keep their callbacks
            self._linked = True
            self._token.add_callback(self._cancel)
        try:
            return await task
        finally:
            self._waiting = None

    def _cancel(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()


async def looked_up(
    client: ClientIdentity, cache: AsyncCache, path: str, arguments: dict[str, Any]
) -> AutoGenLookup | Bypass:
    """Return what a call asks for, or why it goes past the cache.

    Args:
        client: The client to ask.
        cache: The cache in force.
        path: Which of the client's methods is called.
        arguments: With which arguments; replaced by copies before anything is waited for, as
            callers share lists that grow meanwhile.

    Raises:
        CacheClosedError: In mode "replay", the cache isn't open.
    """
    scope = resolve(cache)
    if isinstance(scope, Bypass):
        return scope
    if scope.engine.pacer.spent():
        arguments.update(copied(arguments))
        await scope.engine.pacer.slot()
    try:
        identity = client.now()
        if _holds_image(arguments["messages"]):
            arguments.update(copied(arguments))
            request = await asyncio.to_thread(request_of, arguments)
        else:
            request = request_of(arguments)
        canonical = canonical_json(without_paths(request, scope.settings.ignore))
    except Exception as exc:  # noqa: BLE001 - of other people's objects, which may raise anything
        return Bypass(scope.cache, scope.mode, f"{path}: {_reason_of(exc)}")
    prefix = _prefix(scope.namespace, identity.text, path)
    key = prefix.key(canonical)
    if sample := scope.sample(key):
        key = prefix.key(canonical, sample)
    watcher = watch(scope.settings, path, identity.model, key, lambda: prefix.paths(canonical))
    caller = Caller(identity.credentials)
    return AutoGenLookup(scope, path, prefix, canonical, key, arguments, caller, watcher)


@functools.lru_cache(maxsize=256)
def _prefix(namespace: Namespace, client: str, path: str) -> Prefix:
    return Prefix(namespace, method="AUTOGEN", upstream=client, path=path)


def _reason_of(error: Exception) -> str:
    """Return why a call has no key. Of errors of others not their texts, which may hold secrets."""
    if isinstance(error, NotCanonicalError | UnknownClientError):
        return str(error)
    if isinstance(error, RecursionError):
        return "an argument is nested too deeply, or within itself"
    return f"no key can be made of its arguments ({type(error).__qualname__})"


def _holds_image(messages: Sequence[Any]) -> bool:
    """Tell whether messages hold pixels, whose digests take longer than the loop can wait."""
    return any(
        isinstance(part, Image)
        for message in messages
        if isinstance(content := getattr(message, "content", None), list)
        for part in content
    )
