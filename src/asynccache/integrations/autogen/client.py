"""A chat completion client for AutoGen 0.7 and later that answers from a cache."""

# AutoGen isn't there where this is checked, and what it gives is then unknown.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false
# pyright: reportUntypedBaseClass=false

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import Any, Literal, Self, TypeAlias

from autogen_core import CancellationToken, Component, ComponentModel
from autogen_core.models import (
    ChatCompletionClient,
    CreateResult,
    LLMMessage,
    ModelInfo,
    RequestUsage,
)
from autogen_core.tools import Tool, ToolSchema
from msgspec import UNSET
from pydantic import BaseModel, SecretStr

from asynccache.cache.facade import (
    AsyncCache,
    Bypass,
    Cache,
    SyncCache,
    asynchronous,
    current_cache,
    current_options,
)
from asynccache.errors import NotCanonicalError, described
from asynccache.integrations.autogen.calls import CREATE, STREAM, copied
from asynccache.integrations.autogen.identity import ClientIdentity, UnknownClientError
from asynccache.integrations.autogen.lookup import AutoGenLookup, looked_up
from asynccache.keys.denied import without_credentials

__all__ = ["CachedChatCompletionClient", "CachedChatCompletionClientConfig"]

ToolChoice: TypeAlias = Tool | Literal["auto", "required", "none"]


class CachedChatCompletionClientConfig(BaseModel):
    """What `CachedChatCompletionClient.dump_component` says."""

    client: ComponentModel
    cache: str | SecretStr | None = None
    """A URL for `Cache.from_url`; None is the cache in force. Secret where it has a password."""
    upstream: str | None = None


class CachedChatCompletionClient(ChatCompletionClient, Component[CachedChatCompletionClientConfig]):
    """Wraps a chat completion client: the same request is paid for once.

    Args:
        client: The client to ask. It stays as it is.
        cache: The cache to use, an `AsyncCache` or `SyncCache`; a URL for `Cache.from_url`, opened
            at the first call and closed by `close`; or None for the cache in force around each
            call. Where that is none, calls go straight to the client.
        upstream: A name for what the client asks. A client that isn't one of autogen-ext's needs
            one: give two that may answer differently two names. It takes the place of the client's
            address, and of arguments that have no form to make keys of.

    Raises:
        TypeError: The client needs a name; the message says why. Or ``cache`` is no cache.
        ValueError: The URL is none of a cache.
    """

    component_type = "model"
    component_config_schema = CachedChatCompletionClientConfig
    component_provider_override = "asynccache.integrations.autogen.CachedChatCompletionClient"

    def __init__(
        self,
        client: ChatCompletionClient,
        cache: AsyncCache | SyncCache | str | None = None,
        *,
        upstream: str | None = None,
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._owned = isinstance(cache, str)
        self._opened = 0
        self._cache = Cache.from_url(cache) if isinstance(cache, str) else asynchronous(cache)
        try:
            self._identity = ClientIdentity(client, upstream)
        except (UnknownClientError, NotCanonicalError) as exc:
            raise TypeError(
                f"{described(client)} can't be identified: {exc};"
                ' give upstream="...", a name for the server that it calls'
            ) from exc

    def __repr__(self) -> str:
        return f"<CachedChatCompletionClient {type(self._client).__qualname__}>"

    @property
    def client(self) -> ChatCompletionClient:
        """The client that is asked."""
        return self._client

    # -- calls -------------------------------------------------------------------------------

    async def create(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: ToolChoice = "auto",
        json_output: bool | type[BaseModel] | None = None,
        extra_create_args: Mapping[str, Any] = {},
        cancellation_token: CancellationToken | None = None,
        **more: Any,  # noqa: ANN401 - whatever the client takes beside
    ) -> CreateResult:
        """Return an answer: stored, of a call under way, or of a call of one's own.

        The arguments are those of the wrapped client. ``cached`` is true on answers that were
        stored; `asynccache.status` tells the rest.

        Raises:
            ReplayMiss: In mode "replay", nothing is stored.
            CancelledError: ``cancellation_token`` was cancelled; who waits for the same goes on.
            Exception: What the client raised.
        """
        arguments = {
            "messages": messages, "tools": tools, "tool_choice": tool_choice,
            "json_output": json_output, "extra_create_args": extra_create_args, **more,
        }  # fmt: skip
        lookup = await self._look_up(CREATE, arguments)
        if isinstance(lookup, AutoGenLookup):
            return await lookup.whole(self._client, cancellation_token)
        with lookup:
            return await self._client.create(**arguments, cancellation_token=cancellation_token)

    async def create_stream(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: ToolChoice = "auto",
        json_output: bool | type[BaseModel] | None = None,
        extra_create_args: Mapping[str, Any] = {},
        cancellation_token: CancellationToken | None = None,
        **more: Any,  # noqa: ANN401 - whatever the client takes beside
    ) -> AsyncGenerator[str | CreateResult, None]:
        """Yield the chunks of an answer as they were, or are being, recorded; then a CreateResult.

        A stream that was left before its end, or failed, isn't stored. Raises as `create`.
        """
        arguments = {
            "messages": messages, "tools": tools, "tool_choice": tool_choice,
            "json_output": json_output, "extra_create_args": extra_create_args, **more,
        }  # fmt: skip
        lookup = await self._look_up(STREAM, arguments)
        with nullcontext() if isinstance(lookup, AutoGenLookup) else lookup:
            items: AsyncGenerator[str | CreateResult, None]
            if isinstance(lookup, AutoGenLookup):
                items = lookup.items(self._client, cancellation_token)
            else:
                items = self._client.create_stream(
                    **arguments, cancellation_token=cancellation_token
                )
            async with aclosing(items):
                async for item in items:
                    yield item

    async def _look_up(
        self, path: str, arguments: dict[str, Any]
    ) -> AutoGenLookup | AbstractContextManager[None]:
        """Return what a call asks for, or the block in which it is made past the cache."""
        if not isinstance(arguments["messages"], list | tuple):  # it may be read only once
            arguments["messages"] = list(arguments["messages"])
        cache = self._cache_in_force()
        if cache is None:
            return nullcontext()
        if cache is self._cache and self._owned and not cache.is_open:
            arguments.update(copied(arguments))
            await cache.open()  # several may do so at once: openings are counted
            self._opened += 1
        found = await looked_up(self._identity, cache, path, arguments)
        return found.watched(path) if isinstance(found, Bypass) else found

    def _cache_in_force(self) -> AsyncCache | None:
        if self._cache is None or current_options().cache is not UNSET:
            return current_cache()
        return self._cache

    # -- all else is the client's ------------------------------------------------------------

    async def close(self) -> None:
        """Close the client, and the cache if this one opened it."""
        try:
            while self._opened and self._cache is not None:
                self._opened -= 1
                await self._cache.aclose()
        finally:
            await self._client.close()

    def actual_usage(self) -> RequestUsage:
        """Return what the client says: what was asked of it, so that no hit counts."""
        return self._client.actual_usage()

    def total_usage(self) -> RequestUsage:
        """Return what the client says: what was asked of it, so that no hit counts."""
        return self._client.total_usage()

    def count_tokens(
        self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()
    ) -> int:
        """Return what the client says."""
        return self._client.count_tokens(messages, tools=tools)

    def remaining_tokens(
        self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()
    ) -> int:
        """Return what the client says."""
        return self._client.remaining_tokens(messages, tools=tools)

    @property
    def capabilities(self) -> Any:  # noqa: ANN401 - a deprecated type, which warns when imported
        """What the client says; deprecated by AutoGen for `model_info`."""
        return self._client.capabilities

    @property
    def model_info(self) -> ModelInfo:
        """What the client says."""
        return self._client.model_info

    # -- component config --------------------------------------------------------------------

    def _to_config(self) -> CachedChatCompletionClientConfig:
        cache = self._cache
        if cache is not None and cache.url is None:
            raise TypeError(
                "this client's cache can't be put into a config: make it with Cache.from_url(…),"
                " without further options, or leave it to the cache in force"
            )
        url = None if cache is None else cache.url
        return CachedChatCompletionClientConfig(
            client=self._client.dump_component(),
            cache=SecretStr(url) if url is not None and without_credentials(url)[1] else url,
            upstream=self._upstream,
        )

    @classmethod
    def _from_config(cls, config: CachedChatCompletionClientConfig) -> Self:
        url = config.cache
        return cls(
            ChatCompletionClient.load_component(config.client),
            url.get_secret_value() if isinstance(url, SecretStr) else url,
            upstream=config.upstream,
        )
