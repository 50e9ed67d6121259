"""All providers at one server: a program for `OpenAIServer` that speaks every protocol.

Answers are numbered, so that a second call upstream shows. What a test wants to go wrong is said
by the program's attributes.
"""

from __future__ import annotations

import itertools
import json
import zlib

import brotli
import zstandard

from tests.helpers.openai_server import CutError, Gate
from tests.helpers.providers_answers import Said, protocol_of


class Providers:
    """Answers as the providers do.

    Attributes:
        status: Of each answer; an error's is followed by ``retry-after``.
        encoding: How bodies are compressed, where the client accepts it: gzip, br or zstd.
        end: How streams end: "whole", "cut" (a clean end in the middle), "dropped" (the connection
            breaks off in the middle), "broken" (an error within the stream).
        gate: Held back until it is opened, are all answers.
        asked: How many requests came for an answer.
    """

    def __init__(self, *, status=200, encoding="", end="whole", gate: Gate | None = None):
        self.status, self.encoding, self.end, self.gate = status, encoding, end, gate
        self.asked = 0
        self._numbers = itertools.count(1)

    async def __call__(self, seen):
        if seen.raw == b"":  # Cerebras warms its connection up
            await seen.answer({})
            return
        if seen.path.endswith("/api/show"):  # so does LiteLLM ask what a model of Ollama's can do
            await seen.answer({"capabilities": ["tools"], "model_info": {}, "template": ""})
            return
        self.asked += 1
        number = next(self._numbers)
        if self.gate is not None:
            await self.gate.wait()
        if (other := counted(seen, number)) is not None:
            await self._answer(seen, other)
            return
        protocol = protocol_of(seen)
        if self.status != 200:
            body = json.dumps(protocol.error(self.status)).encode()
            headers = [("retry-after", "7"), ("content-length", str(len(body)))]
            await seen.answer(body, self.status, headers=headers)
            return
        said = what_is_said(protocol, seen.body, number)
        if protocol.streams(seen):
            await self._stream(seen, protocol, [*protocol.events(said)])
        else:
            await self._answer(seen, protocol.plain(said))

    async def _answer(self, seen, body):
        compress, headers = self._encoder(seen)
        data = json.dumps(body).encode()
        await seen.answer(compress(data) + compress(b"", end=True), headers=headers)

    async def _stream(self, seen, protocol, events):
        if self.end != "whole":
            events = events[: len(events) // 2]
        if self.end == "broken":
            events = [*events, protocol.broken]
        compress, headers = self._encoder(seen)
        content_type = getattr(protocol, "content_type", "text/event-stream")
        await seen.start(200, content_type, headers)
        for event in events:
            await seen.send(compress(event))
        if self.end == "dropped":
            raise CutError
        await seen.send(compress(b"", end=True), more=False)

    def _encoder(self, seen):
        accepted = seen.headers.get("accept-encoding", "")
        if not self.encoding or self.encoding not in accepted:
            return lambda data, *, end=False: data, []
        return ENCODERS[self.encoding](), [("content-encoding", self.encoding)]


def what_is_said(protocol, body, number):
    """Return what the model answers."""
    if body.get("tools"):
        return Said(number, "", {"city": f"Paris {number}"})
    if protocol.wants(body):
        return Said(number, f'{{"city": "Paris {number}", "degrees": {number}}}')
    return Said(number, f"This is answer number {number}.")


def counted(seen, number):
    """Return the answer of an endpoint that is no chat, None if it is one."""
    body, path = seen.body, seen.path
    vector = [0.25, 0.5, float(number)]
    if path.endswith(("/count_tokens", "/input_tokens", "/count-tokens:rawPredict")):
        return {"input_tokens": number}
    if path.endswith(":countTokens"):
        return {"totalTokens": number}
    if path.endswith(":predict"):
        embedded = {"values": vector, "statistics": {"token_count": 1, "truncated": False}}
        return {"predictions": [{"embeddings": embedded} for _ in body["instances"]]}
    if path.endswith(":embedContent"):
        return {"embedding": {"values": vector}}
    if path.endswith(":batchEmbedContents"):
        return {"embeddings": [{"values": vector} for _ in body["requests"]]}
    if path.endswith("/v2/embed"):
        texts = body["texts"]
        embeddings = {"float": [vector for _ in texts]}
        meta = {"billed_units": {"input_tokens": 2.0}}
        name = f"e-{number}"
        return {"id": name, "embeddings": embeddings, "texts": texts, "meta": meta}
    if path.endswith("/rerank"):
        results = [{"index": n, "relevance_score": 0.5} for n in range(len(body["documents"]))]
        return {"id": f"r-{number}", "results": results, "meta": {}}
    if path.endswith("/api/embed"):
        return {"model": body["model"], "embeddings": [vector], "prompt_eval_count": 2}
    if path.endswith("/embeddings"):
        inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
        data = [
            {"object": "embedding", "index": n, "embedding": vector} for n in range(len(inputs))
        ]
        usage = {"prompt_tokens": 2, "total_tokens": 2}
        return {"id": f"e-{number}", "object": "list", "data": data, "model": "m", "usage": usage}
    return None


def gzip():
    """Return a function that compresses with gzip, piece by piece."""
    found = zlib.compressobj(wbits=31)
    return lambda data, *, end=False: (
        found.flush() if end else found.compress(data) + found.flush(zlib.Z_SYNC_FLUSH)
    )


def br():
    """Return a function that compresses with Brotli, piece by piece."""
    found = brotli.Compressor(quality=1)
    return lambda data, *, end=False: found.finish() if end else found.process(data) + found.flush()


def zstd():
    """Return a function that compresses with Zstandard, piece by piece."""
    found = zstandard.ZstdCompressor().compressobj()
    return lambda data, *, end=False: (
        found.flush()
        if end
        else found.compress(data) + found.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    )


ENCODERS = {"gzip": gzip, "br": br, "zstd": zstd}
