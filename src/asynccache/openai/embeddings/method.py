"""``embeddings.create``, cached, and the endpoint it asks."""

from __future__ import annotations

from typing import Any, Final

from openai.types import CreateEmbeddingResponse, embedding_create_params as embedding_params

from asynccache.openai.client import sdk
from asynccache.openai.client.cached_method import Arguments, Body, CachedMethod, body_of
from asynccache.openai.client.call import ResultForm
from asynccache.openai.client.endpoints import Endpoint
from asynccache.openai.embeddings.items import decoded
from asynccache.openai.embeddings.job import answered
from asynccache.providers import openai as table

EMBEDDINGS: Final = Endpoint(
    operation=table.EMBEDDINGS,
    path="/embeddings",
    resource="embeddings",
    required=frozenset({"input", "model"}),
    params=embedding_params.EmbeddingCreateParams,
    result=CreateEmbeddingResponse,
    parts=answered,
)


class EmbeddingsMethod(CachedMethod):
    """``embeddings.create``."""

    def _body(self, given: Arguments) -> Body | None:
        if sdk.is_given(given.get("encoding_format", sdk.OMIT)):
            return body_of(given, self._endpoint.params)
        shown = {**given, "encoding_format": "base64"}  # as the SDK sends it
        body = body_of(shown, self._endpoint.params)
        given.update({name: shown[name] for name in given})  # what was an iterator is a list now
        return body

    def _form(self, given: Arguments, headers: Any) -> ResultForm:
        chosen = given.get("encoding_format", sdk.OMIT)
        return self._finished(
            headers,
            lambda found: decoded(found, chosen),
            decode=not sdk.is_given(chosen),
        )
