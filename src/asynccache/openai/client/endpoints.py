"""An endpoint whose answers are cached, and those whose requests have one answer each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from msgspec import Struct
from openai.types import Completion, completion_create_params as completion_params
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    completion_create_params as chat_params,
)
from openai.types.responses import (
    InputTokenCountResponse,
    Response,
    ResponseStreamEvent,
    input_token_count_params,
    response_create_params as response_params,
)

from asynccache.providers import openai as table
from asynccache.providers.provider import Operation


class Endpoint(Struct, frozen=True, kw_only=True):
    """What sets one endpoint apart from another."""

    path: str
    """Below the base URL."""
    resource: str
    """Where the client has its methods: attributes, joined by dots."""
    required: frozenset[str] = frozenset()
    """Arguments without which the SDK itself raises."""
    params: Any
    """The SDK's type of the arguments, for turning models and generators into JSON."""
    result: Any
    """The type of a plain answer."""
    event: Any = None
    """The type of a streamed one's events; None where nothing is streamed."""
    operation: Operation
    """What the table of providers says of it."""
    parts: Callable[[Any, Any], Awaitable[Any]] | None = None
    """Answers a `KeyedCall`, given a `ClientCache`, where entries are parts of answers.

    None where the entry of a request's key is the answer to it.
    """


CHAT: Final = Endpoint(
    operation=table.CHAT,
    path="/chat/completions",
    resource="chat.completions",
    required=frozenset({"messages", "model"}),
    params=chat_params.CompletionCreateParams,
    result=ChatCompletion,
    event=ChatCompletionChunk,
)
RESPONSES: Final = Endpoint(
    operation=table.RESPONSES,
    path="/responses",
    resource="responses",
    params=response_params.ResponseCreateParams,
    result=Response,
    event=ResponseStreamEvent,
)
INPUT_TOKENS: Final = Endpoint(
    operation=table.INPUT_TOKENS,
    path="/responses/input_tokens",
    resource="responses.input_tokens",
    params=input_token_count_params.InputTokenCountParams,
    result=InputTokenCountResponse,
)
COMPLETIONS: Final = Endpoint(
    operation=table.COMPLETIONS,
    path="/completions",
    resource="completions",
    required=frozenset({"model", "prompt"}),
    params=completion_params.CompletionCreateParams,
    result=Completion,
    event=Completion,
)
