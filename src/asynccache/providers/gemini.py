"""Gemini: contents, embeddings and the counting of tokens; its models stand in the paths."""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from asynccache.providers.facts import Facts, count, items, members
from asynccache.providers.judging import Judge, Said, document, events, schema_in
from asynccache.providers.openai import CHAT, EMBEDDINGS
from asynccache.providers.provider import Provider, operation
from asynccache.providers.schemas import Tick

_MODEL: Final = "/(?:models|tunedModels|endpoints)/(?P<model>[^/:]+)"
_TYPES: Final = frozenset({"array", "boolean", "integer", "number", "object", "string", "null"})


class ContentFacts(Facts):
    """Of generated contents."""

    __slots__ = ()
    CUT = frozenset({"MAX_TOKENS"})
    FILTERED = frozenset({
        "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII",
        "MODEL_ARMOR", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
    })  # fmt: skip

    def _take(self, found: dict[str, Any]) -> None:
        if isinstance(model := found.get("modelVersion"), str):
            self.model = model
        for candidate in items(found.get("candidates")):
            chosen = members(candidate) or {}
            self._end(count(chosen.get("index")), chosen.get("finishReason"))
        if (members(found.get("promptFeedback")) or {}).get("blockReason"):
            self.filtered = True
        if (usage := members(found.get("usageMetadata"))) is not None:
            asked = count(usage.get("promptTokenCount"))
            self.input_tokens = asked + count(usage.get("toolUsePromptTokenCount"))
            said = count(usage.get("candidatesTokenCount"))
            self.output_tokens = said + count(usage.get("thoughtsTokenCount"))
            self.cache_read_tokens = count(usage.get("cachedContentTokenCount"))

    def _note(self, reason: object) -> None:
        super()._note(reason)
        # All others say that the model or the server has failed.
        self.error = self.error or not (reason == "STOP" or self.cut or self.filtered)


def streams(_: Mapping[str, Any], path: str) -> bool:
    """Tell whether a request asks for a stream: its path says so."""
    return ":stream" in path


def _config(body: Mapping[str, Any], name: str, snake: str) -> Any:
    """Return a member of a request's configuration, in either of its spellings."""
    config = members(body.get("generationConfig") or body.get("generation_config")) or {}
    return config.get(name) or config.get(snake)


def judge_content(body: Mapping[str, Any]) -> Judge | None:
    """Return what judges the answers to a request; None where there is nothing to judge."""
    if _config(body, "responseMimeType", "response_mime_type") != "application/json":
        return None
    schema = _config(body, "responseJsonSchema", "response_json_schema")
    with suppress(RecursionError):
        schema = schema or _plain(_config(body, "responseSchema", "response_schema"))
    return Judge(_said, demands=True, schema=schema_in({"schema": schema}, "schema"))


def _plain(schema: object) -> dict[str, Any]:
    """Return what JSON Schema says of the shape that a schema in OpenAPI's manner has."""
    given = members(schema) or {}
    found: dict[str, Any] = {name: given[name] for name in ("enum", "required") if name in given}
    if (kind := str(given.get("type") or "").lower()) in _TYPES:
        found["type"] = kind
    if (properties := members(given.get("properties"))) is not None:
        found["properties"] = {name: _plain(one) for name, one in properties.items()}
    if "items" in given:
        found["items"] = _plain(given["items"])
    if choices := items(given.get("anyOf")):
        found["anyOf"] = [_plain(one) for one in choices]
    return {"anyOf": [found, {"type": "null"}]} if given.get("nullable") else found


def _said(chunks: Sequence[bytes], tick: Tick, *, streamed: bool) -> list[Said]:
    texts: dict[object, str] = {}
    others: set[object] = set()
    for record in events(chunks, tick) if streamed else [document(chunks)]:
        for candidate in items(record.get("candidates")):
            at = candidate.get("index", 0)
            parts = items((members(candidate.get("content")) or {}).get("parts"))
            others |= {at for part in parts if "text" not in part}  # calls take a text's place
            said = [part for part in parts if "text" in part and not part.get("thought")]
            texts[at] = texts.get(at, "") + "".join(part["text"] for part in said)
    return [Said(None if at in others and not said.strip() else said) for at, said in texts.items()]


_SHARED: Final[dict[str, Any]] = {
    "stateful": "cachedContent cached_content", "secretive": "tools",
    "marks": (b'"mcp', b'"authConfig"', b'"auth_config"', b'"apiAuth"', b'"api_auth"'),
}  # fmt: skip
CONTENT: Final = operation(
    "gemini-content", _MODEL + ":(?:g|streamG)enerateContent", "contents", "candidates",
    choices=lambda body: count(_config(body, "candidateCount", "candidate_count"), 1),
    facts=ContentFacts, streams=streams, stream_query="alt=sse", judge=judge_content, **_SHARED,
)  # fmt: skip
COUNT_TOKENS: Final = operation(
    "gemini-tokens", _MODEL + ":countTokens", "contents", "totalTokens", **_SHARED
)
EMBED: Final = operation("gemini-embed", _MODEL + ":embedContent", "content", "embedding")
EMBEDS: Final = operation("gemini-embeds", _MODEL + ":batchEmbedContents", "requests", "embeddings")
MARKERS: Final = (("x-goog-api-client", "google-genai-sdk/"),)
PROVIDER: Final = Provider(
    name="gemini",
    hosts=("generativelanguage.googleapis.com",),
    markers=MARKERS,
    operations=(CONTENT, COUNT_TOKENS, EMBED, EMBEDS, CHAT, EMBEDDINGS),
)
