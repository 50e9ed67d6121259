"""Errors of this library come out of SDKs as they are, at once."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

import asynccache
from asynccache import Cache, ReplayMiss
from tests.helpers.script import run_script

pytest_plugins = ("tests.helpers.sdk_fixtures",)

MESSAGES = [{"role": "user", "content": "Hello?"}]


@pytest.fixture(scope="module")
def anyio_backend():
    """Run on one loop, as there is much to run."""
    return "asyncio", {"use_uvloop": False}


def clients():
    """Return the kinds of clients that turn what HTTP clients raise into an error of theirs."""
    import anthropic
    import groq
    import together
    from cerebras.cloud import sdk as cerebras

    return [
        anthropic.AsyncAnthropic, anthropic.Anthropic, groq.AsyncGroq, groq.Groq,
        together.AsyncTogether, together.Together, cerebras.AsyncCerebras, cerebras.Cerebras,
    ]  # fmt: skip


@pytest.mark.parametrize("way", ["wrapped", "instrumented", "both"])
@pytest.mark.parametrize("number", range(8))
async def test_a_replay_that_misses_says_so(number, way, offline):
    """Nobody tries again, and the error isn't a broken connection's; copies of the client, too."""
    kind = clients()[number]
    options = {"warm_tcp_connection": False} if kind.__name__.endswith("Cerebras") else {}
    with contextlib.ExitStack() as stack:
        cache = await asyncio.to_thread(stack.enter_context, Cache.memory(mode="replay"))
        client = kind(api_key="k", base_url="http://127.0.0.1:1", **options)
        if way != "instrumented":
            client = cache.wrap(client)
        if way != "wrapped":
            stack.enter_context(asynccache.instrument(cache))
        for one in (client, client.with_options(timeout=3)):
            if hasattr(one, "messages"):
                call, given = one.messages.create, {"max_tokens": 5}
            else:
                call, given = one.chat.completions.create, {}
            with pytest.raises(ReplayMiss, match="nothing is stored"):
                if kind.__name__.startswith("Async"):
                    await call(model="m", messages=MESSAGES, **given)
                else:
                    await asyncio.to_thread(call, model="m", messages=MESSAGES, **given)
        assert cache.stats().replay_misses == 2
        await asyncio.to_thread(stack.close)


@pytest.mark.parametrize("sdk", ["anthropic", "cerebras.cloud.sdk", "groq", "together"])
def test_an_sdk_that_is_imported_later_lets_them_out_too(sdk):
    """It is patched once it is imported, if its HTTP library is served, until nothing is."""
    done = run_script(
        """
        import importlib, sys
        import asynccache

        def patched():
            kinds = [getattr(module, name) for name in ("AsyncAPIClient", "SyncAPIClient")]
            return [hasattr(kind.request, "__wrapped__") for kind in kinds]

        asynccache.instrument(only=["aiohttp"])
        importlib.import_module(sys.argv[1])
        module = importlib.import_module(sys.argv[1] + "._base_client")
        print(patched())
        with asynccache.instrument():
            print(patched())
        print(patched())
        """,
        sdk,
    )
    assert done.stdout == "[False, False]\n[True, True]\n[False, False]\n", done.stderr
    done = run_script(
        """
        import importlib, sys
        import asynccache

        asynccache.instrument()
        importlib.import_module(sys.argv[1])
        module = importlib.import_module(sys.argv[1] + "._base_client")
        print(hasattr(module.SyncAPIClient.request, "__wrapped__"))
        asynccache.uninstrument()
        print(hasattr(module.SyncAPIClient.request, "__wrapped__"))
        """,
        sdk,
    )
    assert done.stdout == "True\nFalse\n", done.stderr
