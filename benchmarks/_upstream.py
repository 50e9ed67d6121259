"""The question, the answers, and the upstream that gives them: a real server, or one in memory."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
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


class Server:
    """Answers every POST with `ANSWER`, over real sockets, and counts them."""

    def __init__(self) -> None:
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
                self.send_header("content-length", str(len(ANSWER)))
                self.end_headers()
                self.wfile.write(ANSWER)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

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


def in_memory_client(
    pieces: Callable[[], list[bytes]] = lambda: [ANSWER],
    content_type: str = "application/json",
    turns: int = 0,
) -> AsyncOpenAI:
    """Return an SDK client whose transport hands over bytes at once, without any socket.

    Or after some turns of the loop, of which every real transport takes one.
    """
    # httpx2 under openai 3, httpx under openai 2: whichever this SDK was built on.
    base = next(
        kind for kind in openai.DefaultAsyncHttpxClient.__mro__ if kind.__name__ == "AsyncClient"
    )
    http: Any = import_module(base.__module__.partition(".")[0])

    class Body(http.AsyncByteStream):  # type: ignore[misc] # one of two libraries
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in pieces():
                yield piece

    class Transport(http.AsyncBaseTransport):  # type: ignore[misc] # one of two libraries
        async def handle_async_request(self, request: Any) -> Any:
            for _ in range(turns):
                await asyncio.sleep(0)
            return http.Response(200, headers={"content-type": content_type}, stream=Body())

    return AsyncOpenAI(
        api_key=KEY,
        base_url="http://upstream.invalid/v1",
        http_client=openai.DefaultAsyncHttpxClient(transport=Transport()),
    )
