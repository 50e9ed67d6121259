"""Deriving a key from a request's body, against msgspec's sorted encoding and SHA-256 alone.

Bodies of 500 bytes to 500 kB: a system message, tools, and a conversation of turns of about 400
characters. The peer checks nothing: it gives NaN and None one key, and takes bytes for text.
"""

from __future__ import annotations

from hashlib import sha256
from time import perf_counter
from typing import Any

import msgspec
from _harness import Report, Timed, in_turn, run
from _upstream import MODEL

from asynccache.keys.key import Namespace, Prefix, request_key

SIZES = {"500 B": 500, "5 kB": 5_000, "50 kB": 50_000, "500 kB": 500_000}
ROUNDS, SECONDS = 30, 0.02
TURN = "The Danube rises in the Black Forest and flows through ten countries to its delta. " * 5


def body_of(size: int) -> dict[str, Any]:
    """Return a request whose JSON has about as many bytes."""
    body: dict[str, Any] = {
        "model": MODEL,
        "temperature": 0.7,
        "messages": [{"role": "system", "content": "You answer in one paragraph."}],
    }
    if size > 2_000:
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": f"look_up_{number}",
                    "description": "Look a river up in the gazetteer.",
                    "parameters": {
                        "type": "object",
                        "properties": {"name": {"type": "string"}, "length": {"type": "number"}},
                        "required": ["name"],
                        "additionalProperties": False,
                    },
                },
            }
            for number in range(3)
        ]
    roles = ("user", "assistant")
    while (missing := size - len(msgspec.json.encode(body))) > 50:
        role = roles[len(body["messages"]) % 2]
        body["messages"].append({"role": role, "content": TURN[: missing - 34]})
    return body


async def main(report: Report) -> None:
    prefix = Prefix(
        Namespace("42"),
        method="POST",
        upstream="https://api.openai.com/v1",
        path="/chat/completions",
    )
    encode = msgspec.json.Encoder(order="sorted").encode
    for name, size in SIZES.items():
        body = body_of(size)
        # So many that a round takes a while whatever the size, and nobody's first is measured.
        began = perf_counter()
        for _ in range(10):
            request_key(prefix, body)
        times_each = max(10, int(SECONDS / ((perf_counter() - began) / 10)))

        def ours(body: dict[str, Any] = body, count: int = times_each) -> Timed:
            async def timed() -> float:
                began = perf_counter()
                for _ in range(count):
                    request_key(prefix, body)
                return (perf_counter() - began) / count

            return timed

        def theirs(body: dict[str, Any] = body, count: int = times_each) -> Timed:
            async def timed() -> float:
                began = perf_counter()
                for _ in range(count):
                    sha256(encode(body)).digest()
                return (perf_counter() - began) / count

            return timed

        peer = "msgspec sorted + SHA-256"
        times = await in_turn(
            {"key": ours(), peer: theirs()}, 5 if report.small else ROUNDS, collect=False
        )
        report.versus(f"key of {name}", times, "key", peer, target=1.5)
        report.fact(f"bytes of {name}", len(encode(body)))


if __name__ == "__main__":
    run(main, __doc__)
