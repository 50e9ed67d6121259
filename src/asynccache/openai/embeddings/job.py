"""Embeddings, input by input: how a client's call for some of its inputs is made, and answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec.structs import replace

from asynccache.cache.facade import (
    Caller,
    ErrorScope,
    InputsAnswer,
    InputsJob,
    InputsRequest,
    InputsSender,
    NotSharedError,
    ServerAnswer,
)
from asynccache.errors import NotCanonicalError
from asynccache.keys.canonical import canonical_json
from asynccache.openai.client import sdk, sdk_responses
from asynccache.openai.client.attempts import Attempts
from asynccache.openai.client.cached_method import copied
from asynccache.openai.client.call import KeyedCall
from asynccache.openai.client.client_cache import CHANGED, STANDS_STILL, ClientCache
from asynccache.openai.client.parsing import mark
from asynccache.openai.client.replay import is_buildable, request_id
from asynccache.openai.client.upstream import OutboundCheck, check_of, meta_of
from asynccache.openai.embeddings.items import embedding_response
from asynccache.providers import inputs
from asynccache.providers.bodies import keyed_form
from asynccache.providers.sending import PAST, Sending, is_beneath


async def answered(client: ClientCache, call: KeyedCall) -> Any:
    """Return the result of a call for embeddings."""
    path, scope = call.endpoint.path, call.scope
    if inputs.INPUT not in call.data:  # the server says best what it thinks of it
        return await client.past(call, f"{path}: it has no input")
    if is_beneath(call.key):
        return await call.way.past(call.given)
    settings = scope.cache.settings
    try:
        keys = inputs.keys_of(
            call.data,
            call.endpoint.operation,
            lambda body: call.prefix.key(body, call.sample),
            ignore=settings.ignore,
            normalize=settings.normalize,
        )
    except NotCanonicalError as exc:  # of one input alone, as a normalizer sees it
        return await client.past(call, f"{path}: {exc}")
    asked = InputsRequest(
        scope=scope,
        path=path,
        model=call.data.get("model"),
        provider=client.provider,
        key=call.key,
        keys=keys,
        canonical=call.canonical,
        digests=call.prefix.digests,
        paths=call.paths,
        about=call.about,
    )
    sender = _Sender(client, call)
    try:
        found = await InputsJob(asked, sender, inputs).answer()
    except NotSharedError:
        return await client.past(call, f"{path}: {CHANGED}")
    if found is None:
        return await client.past(call, STANDS_STILL)
    return _built(client, call, found, sender.retries)


class _Sender(InputsSender):
    """Makes one call for embeddings.

    Args:
        client: The client's cache.
        call: The call.
    """

    def __init__(self, client: ClientCache, call: KeyedCall) -> None:
        self._client = client
        self._call = call
        self._data = call.data
        self._inputs = inputs.inputs_of(call.data[inputs.INPUT])
        self._checks: dict[bytes, OutboundCheck] = {}
        self._attempts = Attempts(client.client, call)
        self._copied = False

    @property
    def retries(self) -> int:
        """How many attempts failed before the one that was answered."""
        return self._attempts.retries

    def caller(self) -> Caller:
        return self._client.caller(self._call)

    def prepare(self) -> None:
        if not self._copied:
            self._copied = True
            self._data = copied(self._data)()
            self._inputs = inputs.inputs_of(self._data[inputs.INPUT])
        self._attempts.make()

    async def until_answered(self, attempt: Callable[[], Awaitable[None]]) -> None:
        await self._attempts.until_answered(attempt)

    async def send(self, places: Sequence[int] | None, keys: Sequence[bytes]) -> ServerAnswer:
        call, value = self._call, self._data[inputs.INPUT]
        if places is not None:
            value = [self._inputs[at] for at in places]
        data = {**self._data, inputs.INPUT: value}
        settings = call.scope.cache.settings
        keyed, _ = keyed_form(
            data,
            canonical_json(data),
            operation=call.endpoint.operation,
            ignore=settings.ignore,
            normalize=settings.normalize,
        )
        check = check_of(self._client.client, call, keyed, self._attempts)
        self._checks.update(dict.fromkeys(keys, check))
        return await self._made(check, value)

    async def send_past(self) -> ServerAnswer:
        return await self._made(PAST, self._data[inputs.INPUT])

    async def _made(self, sending: Sending, value: Any) -> ServerAnswer:
        make = self._attempts.make()
        response = (await sending.over(lambda: make(value))).http_response
        content: bytes = response.content
        facts = self._call.endpoint.operation.facts()
        facts.read(content)
        received = sdk_responses.received(response, self._call.form.raw)
        return ServerAnswer(content, meta_of(facts, response, "json"), facts.error, received)

    def size(self, place: int) -> int:
        return inputs.size_of(self._inputs[place])

    def scope_of(self, error: BaseException, *, together: bool) -> ErrorScope:
        # What is wrong with one input is no fault of those that others ask for too.
        whose = sdk.scope_of(error)
        return "request" if together and sdk.is_refusal(error) else whose

    def is_sent(self, key: bytes) -> bool:
        return self._client.is_sent(self._checks[key])


def _built(client: ClientCache, call: KeyedCall, found: InputsAnswer, retries: int) -> Any:
    """Return an answer as its caller wants it."""
    form, told, how, parts = call.form, found.told, found.outcome, found.parts
    if found.items:
        if form.decode is not None and not form.raw and is_buildable(client.client, told.meta):
            built = embedding_response(found.head, found.items, decode=form.decode)
            if built is not None:
                sdk_responses.note_request_id(built, request_id(told.meta))
                mark(built, client.status(call, told, how, parts))
                return built
        told = replace(told, chunks=(inputs.assembled(found.head, found.items),))
    return client.result(call, told, how, received=found.received, parts=parts, retries=retries)
