"""Ollama: chats, completions and embeddings; a stream is lines of JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from asynccache.providers import openai
from asynccache.providers.facts import Facts, count, members
from asynccache.providers.judging import Judge, Said, document, lines
from asynccache.providers.provider import Provider, operation
from asynccache.providers.schemas import Tick


class OllamaFacts(Facts):
    """Of all answers."""

    __slots__ = ()
    CUT = frozenset({"length"})
    FAILED = frozenset({"load", "unload"})  # of the model: such a request changes the server

    def _take(self, found: dict[str, Any]) -> None:
        super()._take(found)
        self.complete = found.get("done") is not False  # embeddings don't say
        self.closed = found.get("done") is True
        if "done" in found:
            self._end(0, self.closed and (found.get("done_reason") or "stop"))
        self.input_tokens = count(found.get("prompt_eval_count"))
        self.output_tokens = count(found.get("eval_count"))


def streams(body: Mapping[str, Any], _path: str) -> bool:
    """Tell whether a request asks for a stream: it does if it says nothing."""
    return body.get("stream") is not False


def judge(body: Mapping[str, Any]) -> Judge | None:
    """Return what judges the answers to a request; None where there is nothing to judge."""
    shape = body.get("format")
    if not shape:
        return None
    schema = msgspec.json.encode(shape) if isinstance(shape, dict) else None  # always kept to
    return Judge(_said, demands=True, schema=schema)


def _said(chunks: Sequence[bytes], tick: Tick, *, streamed: bool) -> list[Said]:
    texts: list[str] = []
    called = False
    for record in lines(chunks, tick) if streamed else [document(chunks)]:
        message = members(record.get("message")) or {}
        texts.append(message.get("content") or record.get("response") or "")
        called = called or bool(message.get("tool_calls"))
    text = "".join(texts)
    return [Said(text if text.strip() or not called else None)]


_SHARED: Final[dict[str, Any]] = {
    "facts": OllamaFacts, "streams": streams, "streamed": "lines", "judge": judge,
}  # fmt: skip
OPERATIONS: Final = (
    operation("ollama-chat", "/api/chat", "model messages", "message", **_SHARED),
    operation("ollama-generate", "/api/generate", "model prompt", "response", **_SHARED),
    operation("ollama-embed", "/api/embed", "model input", "embeddings", facts=OllamaFacts),
    operation("ollama-embeddings", "/api/embeddings", "model prompt", "embedding"),
)
_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]", "host.docker.internal", "ollama")
PROVIDER: Final = Provider(
    name="ollama",
    hosts=("ollama.com", *(f"{host}:11434" for host in _HOSTS)),
    markers=(("user-agent", "ollama-python/"),),
    operations=(*OPERATIONS, *openai.OPERATIONS),
)
