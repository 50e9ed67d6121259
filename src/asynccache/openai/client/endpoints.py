"""The endpoints whose answers are cached, and the methods of the SDK that ask them."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct
from openai.types import (
    Completion,
    CreateEmbeddingResponse,
    completion_create_params as completion_params,
    embedding_create_params as embedding_params,
)
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    completion_create_params as chat_params,
)
from openai.types.responses import (
    Response,
    ResponseStreamEvent,
    response_create_params as response_params,
)

from asynccache.providers.facts import Facts, ResponseFacts


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
    facts: type[Facts] = Facts


CHAT: Final = Endpoint(
    path="/chat/completions",
    resource="chat.completions",
    required=frozenset({"messages", "model"}),
    params=chat_params.CompletionCreateParams,
    result=ChatCompletion,
    event=ChatCompletionChunk,
)
RESPONSES: Final = Endpoint(
    path="/responses",
    resource="responses",
    params=response_params.ResponseCreateParams,
    result=Response,
    event=ResponseStreamEvent,
    facts=ResponseFacts,
)
COMPLETIONS: Final = Endpoint(
    path="/completions",
    resource="completions",
    required=frozenset({"model", "prompt"}),
    params=completion_params.CompletionCreateParams,
    result=Completion,
    event=Completion,
)
EMBEDDINGS: Final = Endpoint(
    path="/embeddings",
    resource="embeddings",
    required=frozenset({"input", "model"}),
    params=embedding_params.EmbeddingCreateParams,
    result=CreateEmbeddingResponse,
)
BY_PATH: Final = {
    endpoint.path: endpoint for endpoint in (CHAT, RESPONSES, COMPLETIONS, EMBEDDINGS)
}
