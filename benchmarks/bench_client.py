"""What the wrapped client adds to a call that isn't a hit, and embeddings that are known.

Each call is made on the wrapped client and on the bare one, over a transport that hands over the
answer from memory after one turn of the loop, so that the SDK's own work is all there is beside
ours. A bypassed call is one with `background`, and one to an endpoint that isn't cached. A miss is
a call whose request is new each time, through its lookup, its flight and its way into a store in
memory; what it takes beyond the bare call is ours. Embeddings are of 100 known inputs, in the SDK's
default form (base64 on the wire, lists of numbers for the caller) and as base64, which spares both
the decoding.
"""

from __future__ import annotations

import array
import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

from _harness import Report, in_turn, repeated, run
from _upstream import MODEL, in_memory_client, messages

from asynccache import Cache

ROUNDS, CALLS, INPUTS = 30, 100, 100
DIMENSIONS = (256, 1536)
MODELS_LIST = json.dumps({"object": "list", "data": []}).encode()


def embeddings(dimensions: int) -> bytes:
    vectors = [
        array.array("f", [((at * 31 + n) % 977) / 977 for n in range(dimensions)])
        for at in range(INPUTS)
    ]
    return json.dumps({
        "object": "list",
        "data": [
            {"object": "embedding", "index": at, "embedding": base64.b64encode(v).decode()}
            for at, v in enumerate(vectors)
        ],
        "model": "text-embedding-3-small",
        "usage": {"prompt_tokens": 900, "total_tokens": 900},
    }).encode()  # fmt: skip


async def main(report: Report) -> None:
    rounds = 5 if report.small else ROUNDS
    await measure_calls(report, rounds)
    for dimensions in DIMENSIONS:
        await measure_embeddings(report, rounds, dimensions)


async def measure_calls(report: Report, rounds: int) -> None:
    async with Cache.memory() as cache:
        bare = in_memory_client(turns=1)
        models = in_memory_client(lambda: [MODELS_LIST], turns=1)
        wrapped, wrapped_models = cache.wrap(bare), cache.wrap(models)
        number = 0

        def background(client: Any) -> Callable[[], Awaitable[object]]:
            return lambda: client.responses.create(model=MODEL, input="Hello?", background=True)

        def listing(client: Any) -> Callable[[], Awaitable[object]]:
            return client.models.list

        def new(client: Any) -> Callable[[], Awaitable[object]]:
            def call() -> Any:
                nonlocal number
                number += 1
                return client.chat.completions.create(model=MODEL, messages=messages(number))

            return call

        times = await in_turn(
            {
                "background": repeated(background(wrapped), CALLS),
                "background, bare": repeated(background(bare), CALLS),
                "models.list": repeated(listing(wrapped_models), CALLS),
                "models.list, bare": repeated(listing(models), CALLS),
                "miss": repeated(new(wrapped), CALLS),
                "miss, bare": repeated(new(bare), CALLS),
            },
            rounds,
        )
        stats = cache.stats()
        assert stats.hits == stats.joined == 0
        assert stats.bypassed == 2 * CALLS * (rounds + 1)
    report.versus("bypassed: background", times, "background", "background, bare", target=1.02)
    report.versus("bypassed: models.list", times, "models.list", "models.list, bare", target=1.02)
    report.versus("miss", times, "miss", "miss, bare")
    report.value(
        "miss, beyond the bare call", times.median("miss") - times.median("miss, bare"),
        target=150e-6, unit="us",
    )  # fmt: skip


async def measure_embeddings(report: Report, rounds: int, dimensions: int) -> None:
    answer = embeddings(dimensions)
    inputs = [f"Which rivers flow through Vienna? ({number})" for number in range(INPUTS)]
    async with Cache.memory() as cache:
        bare = in_memory_client(lambda: [answer])
        wrapped = cache.wrap(bare)

        def ask(client: Any, **more: Any) -> Callable[[], Awaitable[Any]]:
            return lambda: client.embeddings.create(model="m", input=inputs, **more)

        for more in ({}, {"encoding_format": "base64"}):
            first, again, theirs = (
                await ask(wrapped, **more)(), await ask(wrapped, **more)(),
                await ask(bare, **more)(),
            )  # fmt: skip
            assert first == again == theirs
            times = await in_turn(
                {
                    "ours": repeated(ask(wrapped, **more), 5),
                    "SDK": repeated(ask(bare, **more), 2),
                },
                rounds,
            )
            form = "base64" if more else "numbers"
            report.versus(
                f"{INPUTS} known embeddings of {dimensions}, as {form}", times, "ours", "SDK",
                target=1 / 20,
            )  # fmt: skip
        assert cache.stats().upstream_calls == 1  # both forms are one on the wire


if __name__ == "__main__":
    run(main, __doc__, "openai", "pydantic")
