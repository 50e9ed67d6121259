"""The question, the answers, and the upstream that gives them: a real server, or one in memory."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from types import TracebackType
from typing import Any, Self

import openai
from openai import AsyncOpenAI

MODEL = "gpt-4o"
ANSWER_BYTES = 850
KEY = "sk-not-a-key"


def messages(number: int = 0) -> list[dict[str, str]]:
    """Return the question, of which there are as many as numbers."""
    return [
        {"role": "system", "content": "You answer questions about geography, in one paragraph."},
        {"role": "user", "content": f"Which rivers flow through Vienna? ({number})"},
    ]


def _completion(content: str) -> bytes:
    return json.dumps({
        "id": "chatcmpl-ANjU8pcSKBGMUfKvvmdq3UFVSVnxC", "object": "chat.completion",
        "created": 1730000000, "model": "gpt-4o-2024-08-06",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": content, "refusal": None},
            "logprobs": None, "finish_reason": "stop",
        }],
        "usage": {
            "prompt_tokens": 31, "completion_tokens": 38, "total_tokens": 69,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0, "audio_tokens": 0,
                "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
            },
        },
        "system_fingerprint": "fp_45cf54deae",
    }).encode()  # fmt: skip


ANSWER = _completion("The Danube. " * ((ANSWER_BYTES - len(_completion(""))) // 12))
ANSWER += b" " * (ANSWER_BYTES - len(ANSWER))  # JSON doesn't mind


def stream_events(count: int) -> list[bytes]:
    """Return the server-sent events of a streamed answer, the closing one included."""

    def chunk(delta: dict[str, str], reason: str | None) -> bytes:
        data = json.dumps({
            "id": "chatcmpl-ANjU8pcSKBGMUfKvvmdq3UFVSVnxC", "object": "chat.completion.chunk",
            "created": 1730000000, "model": "gpt-4o-2024-08-06",
            "system_fingerprint": "fp_45cf54deae",
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}],
        })  # fmt: skip
        return f"data: {data}\n\n".encode()

    words = [chunk({"content": f" word{number}"}, None) for number in range(count - 2)]
    return [chunk({"role": "assistant", "content": ""}, None), *words, chunk({}, "stop"),
            b"data: [DONE]\n\n"]  # fmt: skip


MESSAGE_MODEL = "claude-sonnet-5"
_MESSAGE: dict[str, Any] = {
    "id": "msg_01XFDUDYJgAACzvnptvVoYEL", "type": "message", "role": "assistant",
    "model": MESSAGE_MODEL, "content": [], "stop_reason": None, "stop_sequence": None,
    "usage": {
        "input_tokens": 31, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
        "output_tokens": 1, "service_tier": "standard",
    },
}  # fmt: skip
MESSAGE = json.dumps({
    **_MESSAGE,
    "content": [{"type": "text", "text": "The Danube. " * 35}],
    "stop_reason": "end_turn", "usage": {**_MESSAGE["usage"], "output_tokens": 38},
}).encode()  # fmt: skip
"""An answer of Anthropic's."""


def message_events(count: int) -> list[bytes]:
    """Return the server-sent events of a streamed answer of Anthropic's."""

    def event(kind: str, **members: Any) -> bytes:
        data = json.dumps({"type": kind, **members})
        return f"event: {kind}\ndata: {data}\n\n".encode()

    def word(number: int) -> bytes:
        delta = {"type": "text_delta", "text": f" word{number}"}
        return event("content_block_delta", index=0, delta=delta)

    return [
        event("message_start", message=_MESSAGE),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *(word(number) for number in range(count - 5)),
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None},
              usage={"output_tokens": 38}),
        event("message_stop"),
    ]  # fmt: skip


class Server:
    """Answers every POST with the same, over real sockets, and counts them."""

    def __init__(self, answer: bytes = ANSWER) -> None:
        self.calls = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one piece
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                server.calls += 1
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.root_url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.base_url = f"{self.root_url}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def client(self) -> AsyncOpenAI:
        """Return an SDK client that asks this server."""
        return AsyncOpenAI(api_key=KEY, base_url=self.base_url)


def empty_transport(
    http: Any,
    pieces: Callable[[], list[bytes]] = lambda: [ANSWER],
    content_type: str = "application/json",
    turns: int = 0,
) -> Any:
    """Return a transport of httpx or httpx2 that hands over bytes at once, without any socket.

    Or after some turns of the loop, of which every real transport takes one.
    """

    class Body(http.AsyncByteStream, http.SyncByteStream):  # type: ignore[misc] # one of two libraries
        def __iter__(self) -> Iterator[bytes]:
            yield from pieces()

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in pieces():
                yield piece

    class Transport(http.AsyncBaseTransport, http.BaseTransport):  # type: ignore[misc] # one of two libraries
        def handle_request(self, request: Any) -> Any:
            return http.Response(200, headers={"content-type": content_type}, stream=Body())

        async def handle_async_request(self, request: Any) -> Any:
            for _ in range(turns):
                await asyncio.sleep(0)
            return self.handle_request(request)

    return Transport()


def in_memory_client(
    pieces: Callable[[], list[bytes]] = lambda: [ANSWER],
    content_type: str = "application/json",
    turns: int = 0,
) -> AsyncOpenAI:
    """Return an SDK client over an `empty_transport`."""
    # httpx2 under openai 3, httpx under openai 2: whichever this SDK was built on.
    base = next(
        kind for kind in openai.DefaultAsyncHttpxClient.__mro__ if kind.__name__ == "AsyncClient"
    )
    http: Any = import_module(base.__module__.partition(".")[0])

    transport = empty_transport(http, pieces, content_type, turns)
    return AsyncOpenAI(
        api_key=KEY,
        base_url="http://upstream.invalid/v1",
        http_client=openai.DefaultAsyncHttpxClient(transport=transport),
    )
