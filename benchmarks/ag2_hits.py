"""One hit at a time from disk, against AG2 0.14 with `Cache.disk`, in AG2's own environment.

The same message and the same answer of 850 bytes, both as ChatCompletion: ours through the wrapped
SDK client, AG2's through `OpenAIWrapper.create(cache=…)`. A real server answers the first time
only. AG2 before 1.0, the last with `Cache.disk`, needs openai 2, which we run on here too.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from _harness import Report, in_turn, repeated, run
from _upstream import KEY, MODEL, Server, messages
from autogen import Cache as Ag2Cache, OpenAIWrapper

from asynccache import Cache

ROUNDS, CALLS, SLOW_CALLS = 30, 1000, 100


async def main(report: Report) -> None:
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        root = Path(folder)
        theirs = OpenAIWrapper(
            config_list=[{"model": MODEL, "api_key": KEY, "base_url": server.base_url}]
        )
        with Ag2Cache.disk(cache_seed=42, cache_path_root=str(root / "ag2")) as ag2_cache:
            async with (
                Cache.disk(cache_path_root=root / "ours") as cache,
                server.client() as client,
            ):
                ours = cache.wrap(client)

                async def ask_ours() -> object:
                    return await ours.chat.completions.create(model=MODEL, messages=messages())

                async def ask_theirs() -> object:
                    return theirs.create(messages=messages(), cache=ag2_cache)

                await ask_ours()
                await ask_theirs()
                assert server.calls == 2
                times = await in_turn(
                    {
                        "disk": repeated(ask_ours, CALLS),
                        "AG2 0.14 Cache.disk": repeated(ask_theirs, SLOW_CALLS),
                    },
                    5 if report.small else ROUNDS,
                )
                assert server.calls == 2, "something went upstream while hits were timed"
    report.versus("hit from disk", times, "disk", "AG2 0.14 Cache.disk", target=1 / 20)


if __name__ == "__main__":
    run(main, __doc__, "ag2", "openai", "pydantic", "diskcache")
