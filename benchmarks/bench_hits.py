"""One hit at a time, from disk and from memory, against AutoGen's and LangChain's caches.

The same message is asked over and over and the same answer of 850 bytes comes back, as the typed
object of each library: our ChatCompletion through the wrapped SDK client, autogen-ext's
CreateResult through ChatCompletionCache, LangChain's AIMessage through ChatOpenAI. A real server
answers the first time only; its calls are counted. autogen-ext's memory store hands out one shared
object and leaves model, tool choice and address out of its key; ours does neither. AG2 is in
ag2_hits.py, since it needs an environment of its own.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import diskcache
from _harness import Report, Times, in_turn, repeated, run
from _upstream import KEY, MODEL, Server, messages
from autogen_core import InMemoryStore
from autogen_core.models import SystemMessage, UserMessage
from autogen_ext.cache_store.diskcache import DiskCacheStore
from autogen_ext.models.cache import ChatCompletionCache
from autogen_ext.models.openai import OpenAIChatCompletionClient
from langchain_openai import ChatOpenAI

from asynccache import Cache, status as status_of

# LangChain turns its own warnings on and gives one per hit: printing is not what is measured.
warnings.showwarning = lambda *_, **__: None

from langchain_community.cache import SQLiteCache  # noqa: E402 - it warns at import too

ROUNDS, CALLS, SLOW_CALLS = 30, 1000, 100


async def main(report: Report) -> None:
    rounds = 5 if report.small else ROUNDS
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        root = Path(folder)
        async with (
            Cache.disk(cache_path_root=root / "ours") as disk,
            Cache.memory() as memory,
            server.client() as client,
        ):
            on_disk, in_memory = disk.wrap(client), memory.wrap(client)

            autogen = OpenAIChatCompletionClient(model=MODEL, api_key=KEY, base_url=server.base_url)
            autogen_disk = ChatCompletionCache(
                autogen, DiskCacheStore(diskcache.Cache(str(root / "autogen")))
            )
            autogen_memory = ChatCompletionCache(autogen, InMemoryStore())
            system, user = (message["content"] for message in messages())
            autogen_messages = [
                SystemMessage(content=system),
                UserMessage(content=user, source="user"),
            ]
            langchain = ChatOpenAI(
                model=MODEL, api_key=KEY, base_url=server.base_url,
                cache=SQLiteCache(database_path=str(root / "langchain.db")),
            )  # fmt: skip
            langchain_messages = [("system", system), ("human", user)]

            async def ours_disk() -> object:
                return await on_disk.chat.completions.create(model=MODEL, messages=messages())

            async def ours_memory() -> object:
                return await in_memory.chat.completions.create(model=MODEL, messages=messages())

            async def theirs_disk() -> object:
                return await autogen_disk.create(autogen_messages)

            async def theirs_memory() -> object:
                return await autogen_memory.create(autogen_messages)

            async def theirs_langchain() -> object:
                return await langchain.ainvoke(langchain_messages)

            every = (ours_disk, ours_memory, theirs_disk, theirs_memory, theirs_langchain)
            for call in every:
                await call()
            filled = server.calls
            assert filled == len(every), filled
            times = await in_turn(
                {
                    "disk": repeated(ours_disk, CALLS),
                    "autogen-ext DiskCacheStore": repeated(theirs_disk, CALLS),
                    "LangChain SQLiteCache": repeated(theirs_langchain, SLOW_CALLS),
                    "memory": repeated(ours_memory, CALLS),
                    "autogen-ext InMemoryStore": repeated(theirs_memory, CALLS),
                },
                rounds,
            )
            assert server.calls == filled, "something went upstream while hits were timed"
            for answer, outcome in ((await ours_disk(), "hit"), (await ours_memory(), "hit")):
                status = status_of(answer)
                assert status is not None
                assert status.outcome == outcome
            await autogen.close()
    add_rows(report, times)


def add_rows(report: Report, times: Times) -> None:
    report.versus("hit from disk", times, "disk", "autogen-ext DiskCacheStore", target=0.5)
    report.versus("hit from disk", times, "disk", "LangChain SQLiteCache", target=1 / 20)
    report.versus("hit from memory", times, "memory", "autogen-ext InMemoryStore", target=1.5)
    report.versus("hit from disk", times, "disk", "memory", note="against our own")


if __name__ == "__main__":
    run(
        main, __doc__, "openai", "pydantic", "autogen-ext", "diskcache", "langchain-community",
        "langchain-openai",
    )  # fmt: skip
