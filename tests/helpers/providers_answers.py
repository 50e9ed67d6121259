"""What the providers answer: one class for each protocol, with the shapes of the real ones."""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar, NamedTuple

from tests.helpers.openai_answers import RESPONSE, response_events
from tests.helpers.openai_server import DONE, chunk, completion, sse

TOOL = "get_weather"


class Said(NamedTuple):
    """What a model says: a text, or the arguments of a tool; the number tells answers apart."""

    number: int
    text: str
    arguments: dict[str, Any] | None = None
    tool: str = TOOL
    with_id: bool = True
    """Whether a call has an id at Gemini: 3 and later give one, 2.5 doesn't."""

    @property
    def halves(self):
        """The text, or the arguments as JSON, in two parts."""
        whole = self.text if self.arguments is None else json.dumps(self.arguments)
        return whole[: len(whole) // 2], whole[len(whole) // 2 :]


def named(kind, **members):
    """Return a server-sent event that carries its name twice, as Anthropic and Cohere have it."""
    return f"event: {kind}\n".encode() + sse({"type": kind, **members})


class Chat:
    """OpenAI's chat completions, and whoever speaks them."""

    broken = sse({"error": {"message": "Overloaded", "type": "server_error", "code": 529}})
    usage: ClassVar[dict] = {
        "prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 4},
    }  # fmt: skip

    def wants(self, body):
        """Tell whether a request demands JSON."""
        return "response_format" in body

    def streams(self, seen):
        """Tell whether a request asks for a stream."""
        return bool(seen.body.get("stream"))

    def error(self, status):
        """Return what stands in an error's body."""
        return {"error": {"message": f"status {status}", "type": "error", "code": str(status)}}

    def plain(self, said):
        """Return an answer in one piece."""
        message: dict = {"role": "assistant", "content": said.text}
        if said.arguments is not None:
            message = {"role": "assistant", "content": "", "tool_calls": [self._call(said)]}
        choice = {"index": 0, "message": message, "finish_reason": self._finish(said)}
        extra = self._extra(said)
        return completion(id=f"chatcmpl-{said.number}", choices=[choice], usage=self.usage, **extra)

    def events(self, said):
        """Return an answer as it is streamed."""
        name = f"chatcmpl-{said.number}"
        extra = self._extra(said)
        for number, part in enumerate(self._parts(said)):
            delta: dict = {"role": "assistant", "content": part}
            if said.arguments is not None:
                function = {"name": said.tool, "arguments": part}
                if number:
                    del function["name"]
                call = {"index": 0, "id": f"call_{said.number}", "type": "function"}
                delta = {"role": "assistant", "tool_calls": [{**call, "function": function}]}
            yield sse(self._chunk(name, delta, None, extra))
        last = self._chunk(name, {"content": ""}, self._finish(said), extra)
        yield sse({**last, "usage": self.usage, **self._last(said)})
        yield DONE

    def _parts(self, said):
        return said.halves

    def _chunk(self, name, delta, finish, extra):
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        return chunk(id=name, choices=choices, **extra)

    def _call(self, said):
        function = {"name": said.tool, "arguments": json.dumps(said.arguments)}
        return {"id": f"call_{said.number}", "type": "function", "index": 0, "function": function}

    def _finish(self, said):
        return "stop" if said.arguments is None else "tool_calls"

    def _extra(self, said):
        return {"system_fingerprint": f"fp_{said.number}"}

    def _last(self, said):
        return {}


class GroqChat(Chat):
    """Groq's: streams have their usage in a member of its own, too."""

    def _extra(self, said):
        return {**super()._extra(said), "service_tier": "on_demand"}

    def _last(self, said):
        return {"x_groq": {"id": f"req_{said.number}", "usage": self.usage}}


class MistralChat(Chat):
    """Mistral's: calls of tools come in one piece."""

    def _parts(self, said):
        return said.halves if said.arguments is None else ["".join(said.halves)]


class CerebrasChat(Chat):
    """Cerebras's: each answer tells how long its parts took, and errors have their own event."""

    broken = b"event: error\n" + Chat.broken

    def _extra(self, said):
        times = {"queue_time": 0.1, "prompt_time": 0.2, "completion_time": 0.3, "total_time": 0.6}
        return {**super()._extra(said), "time_info": {**times, "created": 1700000000}}


class Responses:
    """OpenAI's Responses API."""

    broken = named("error", code="server_error", message="Overloaded", sequence_number=1)
    error = Chat.error
    streams = Chat.streams

    def wants(self, body):
        """Tell whether a request demands JSON."""
        return "text" in body

    def plain(self, said):
        """Return an answer in one piece."""
        return {**RESPONSE, "id": f"resp_{said.number}", "output": [self._item(said)]}

    def events(self, said):
        """Return an answer as it is streamed."""
        return response_events(id=f"resp_{said.number}")

    def _item(self, said):
        if said.arguments is None:
            part = {"type": "output_text", "text": said.text, "annotations": []}
            return {**RESPONSE["output"][0], "content": [part]}
        return {
            "type": "function_call", "id": "fc_1", "call_id": "call_1", "name": said.tool,
            "arguments": json.dumps(said.arguments), "status": "completed",
        }  # fmt: skip


class Anthropic:
    """Anthropic's messages."""

    broken = named("error", error={"type": "overloaded_error", "message": "Overloaded"})
    streams = Chat.streams
    usage: ClassVar[dict] = {
        "input_tokens": 5, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 4,
        "output_tokens": 3, "service_tier": "standard",
    }  # fmt: skip
    _kinds: ClassVar[dict] = {
        400: "invalid_request_error",
        429: "rate_limit_error",
        529: "overloaded_error",
    }

    def wants(self, body):
        """Tell whether a request demands JSON."""
        return "output_config" in body or "output_format" in body

    def error(self, status):
        """Return what stands in an error's body."""
        kind = self._kinds.get(status, "api_error")
        error = {"type": kind, "message": f"status {status}"}
        return {"type": "error", "error": error, "request_id": "req_1"}

    def plain(self, said):
        """Return an answer in one piece."""
        return {
            **self._begun(said),
            "content": [self._block(said)],
            "stop_reason": self._finish(said),
            "usage": self.usage,
        }

    def events(self, said):
        """Return an answer as it is streamed."""
        yield named("message_start", message=self._begun(said))
        block = self._block(said)
        empty: dict = {"text": ""} if said.arguments is None else {"input": {}}
        yield named("content_block_start", index=0, content_block={**block, **empty})
        yield named("ping")
        for part in said.halves:
            delta = (
                {"type": "text_delta", "text": part}
                if said.arguments is None
                else {"type": "input_json_delta", "partial_json": part}
            )
            yield named("content_block_delta", index=0, delta=delta)
        yield named("content_block_stop", index=0)
        end = {"stop_reason": self._finish(said), "stop_sequence": None}
        yield named("message_delta", delta=end, usage={"output_tokens": 3})
        yield named("message_stop")

    def _begun(self, said):
        return {
            "id": f"msg_{said.number}", "type": "message", "role": "assistant",
            "model": "claude-sonnet-4-5", "content": [], "stop_reason": None,
            "stop_sequence": None, "usage": {**self.usage, "output_tokens": 1},
        }  # fmt: skip

    def _block(self, said):
        if said.arguments is None:
            return {"type": "text", "text": said.text}
        name = f"toolu_{said.number}"
        return {"type": "tool_use", "id": name, "name": said.tool, "input": said.arguments}

    def _finish(self, said):
        return "end_turn" if said.arguments is None else "tool_use"


class Gemini:
    """Gemini's generateContent."""

    usage: ClassVar[dict] = {
        "promptTokenCount": 9, "candidatesTokenCount": 3, "thoughtsTokenCount": 2,
        "totalTokenCount": 14, "cachedContentTokenCount": 4,
    }  # fmt: skip
    _states: ClassVar[dict] = {400: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED"}

    @property
    def broken(self):
        """Say in the middle of a stream that it has failed."""
        return self._record(self.error(503))

    def wants(self, body):
        """Tell whether a request demands JSON."""
        config = body.get("generationConfig") or {}
        return not {"responseMimeType", "response_mime_type"}.isdisjoint(config)

    def streams(self, seen):
        """Tell whether a request asks for a stream."""
        return seen.path.endswith(":streamGenerateContent")

    def error(self, status):
        """Return what stands in an error's body."""
        state = self._states.get(status, "UNAVAILABLE")
        return {"error": {"code": status, "message": f"status {status}", "status": state}}

    def plain(self, said):
        """Return an answer in one piece."""
        part: dict = {"text": said.text}
        if said.arguments is not None:
            named = {"id": f"call_{said.number}"} if said.with_id else {}
            part = {"functionCall": {**named, "name": said.tool, "args": said.arguments}}
        return self._answer(said, part, "STOP")

    def events(self, said):
        """Return an answer as it is streamed; a call isn't cut in pieces."""
        if said.arguments is None:
            for text in said.halves:
                yield self._record(self._answer(said, {"text": text}))
        else:
            part = self.plain(said)["candidates"][0]["content"]["parts"][0]
            yield self._record(self._answer(said, part))
        yield self._record(self._answer(said, {"text": ""}, "STOP"))

    def _answer(self, said, part, finish=None):
        candidate = {"content": {"parts": [part], "role": "model"}, "index": 0}
        if finish:
            candidate["finishReason"] = finish
        return {
            "candidates": [candidate], "usageMetadata": self.usage,
            "modelVersion": "gemini-2.5-flash", "responseId": f"r-{said.number}",
        }  # fmt: skip

    def _record(self, data):
        return f"data: {json.dumps(data)}\r\n\r\n".encode()


class Cohere:
    """Cohere's chat, version 2."""

    broken = named("message-end", id="c-1", delta={"finish_reason": "ERROR", "error": "Overloaded"})
    wants = Chat.wants
    streams = Chat.streams
    usage: ClassVar[dict] = {
        "billed_units": {"input_tokens": 5.0, "output_tokens": 3.0},
        "tokens": {"input_tokens": 9.0, "output_tokens": 3.0},
        "cached_tokens": 4.0,
    }

    def error(self, status):
        """Return what stands in an error's body."""
        return {"id": "e-1", "message": f"status {status}"}

    def plain(self, said):
        """Return an answer in one piece."""
        message: dict = {"role": "assistant", "content": [{"type": "text", "text": said.text}]}
        if said.arguments is not None:
            call = self._call(said, json.dumps(said.arguments))
            message = {"role": "assistant", "tool_plan": "I look it up.", "tool_calls": [call]}
        finish = self._finish(said)
        name = f"c-{said.number}"
        return {"id": name, "finish_reason": finish, "message": message, "usage": self.usage}

    def events(self, said):
        """Return an answer as it is streamed."""
        begun = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": []}
        yield named("message-start", id=f"c-{said.number}", delta={"message": begun})
        first, second = said.halves
        if said.arguments is None:
            start: dict = {"type": "text", "text": ""}
            yield named("content-start", index=0, delta={"message": {"content": start}})
            for part in (first, second):
                delta = {"message": {"content": {"text": part}}}
                yield named("content-delta", index=0, delta=delta)
            yield named("content-end", index=0)
        else:
            start = {"message": {"tool_calls": self._call(said, first)}}
            yield named("tool-call-start", index=0, delta=start)
            rest = {"message": {"tool_calls": {"function": {"arguments": second}}}}
            yield named("tool-call-delta", index=0, delta=rest)
            yield named("tool-call-end", index=0)
        end = {"finish_reason": self._finish(said), "usage": self.usage}
        yield named("message-end", id=f"c-{said.number}", delta=end)
        yield DONE

    def _call(self, said, arguments):
        function = {"name": said.tool, "arguments": arguments}
        return {"id": f"call_{said.number}", "type": "function", "function": function}

    def _finish(self, said):
        return "COMPLETE" if said.arguments is None else "TOOL_CALL"


class Ollama:
    """Ollama's chat: a stream is lines, and streaming is what it does if nothing is said."""

    broken = b'{"error": "Overloaded"}\n'
    content_type = "application/x-ndjson"

    def wants(self, body):
        """Tell whether a request demands JSON."""
        return bool(body.get("format"))

    def streams(self, seen):
        """Tell whether a request asks for a stream."""
        return seen.body.get("stream", True)

    def error(self, status):
        """Return what stands in an error's body."""
        return {"error": f"status {status}"}

    def plain(self, said):
        """Return an answer in one piece."""
        message: dict = {"role": "assistant", "content": said.text}
        if said.arguments is not None:
            call: dict = {"function": {"name": said.tool, "arguments": said.arguments}}
            message = {"role": "assistant", "content": "", "tool_calls": [call]}
        return self._last(message)

    def events(self, said):
        """Return an answer as it is streamed; a call isn't cut in pieces."""
        if said.arguments is None:
            messages: list[dict] = [{"role": "assistant", "content": part} for part in said.halves]
        else:
            messages = [self.plain(said)["message"]]
        for message in messages:
            yield self._line({**self._begun(message), "done": False})
        yield self._line(self._last({"role": "assistant", "content": ""}))

    def _begun(self, message):
        return {"model": "llama3.2", "created_at": "2026-11-30T12:00:00Z", "message": message}

    def _last(self, message):
        return {
            **self._begun(message), "done": True, "done_reason": "stop", "total_duration": 9,
            "load_duration": 1, "prompt_eval_count": 9, "prompt_eval_duration": 2,
            "eval_count": 3, "eval_duration": 4,
        }  # fmt: skip

    def _line(self, data):
        return json.dumps(data).encode() + b"\n"


PROTOCOLS = (  # by the path, and by how the user agent begins
    (r"(/messages|/publishers/anthropic/.*awPredict)$", "", Anthropic()),
    (r":(stream)?[gG]enerateContent$", "", Gemini()),
    (r"/v2/chat$", "", Cohere()),
    (r"/api/chat$", "", Ollama()),
    (r"/responses$", "", Responses()),
    (r"/openai/v1/chat/completions$", "", GroqChat()),
    (r"/chat/completions$", r"(Async)?Cerebras/", CerebrasChat()),
    (r"/chat/completions$", r".*mistral", MistralChat()),
    (r"/chat/completions$", "", Chat()),
)


def protocol_of(seen):
    """Return the protocol that a request is in."""
    agent = seen.headers.get("user-agent", "")
    for path, begins, protocol in PROTOCOLS:
        if re.search(path, seen.path) and re.match(begins, agent):
            return protocol
    raise ValueError(f"no provider has {seen.path}")
