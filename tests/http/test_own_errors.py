"""Errors of this library come out of SDKs as they are, at once."""

from __future__ import annotations

import inspect

import pytest

from asynccache import Cache, ReplayMiss

MESSAGES = [{"role": "user", "content": "Hello?"}]


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


@pytest.mark.parametrize("number", range(8))
async def test_a_replay_that_misses_says_so(number):
    """Nobody tries again, and the error isn't a broken connection's; copies of the client, too."""
    kind = clients()[number]
    options = {"warm_tcp_connection": False} if kind.__name__.endswith("Cerebras") else {}
    async with Cache.memory(mode="replay") as cache:
        client = cache.wrap(kind(api_key="k", base_url="http://127.0.0.1:1", **options))
        for one in (client, client.with_options(timeout=3)):
            if hasattr(one, "messages"):
                call, given = one.messages.create, {"max_tokens": 5}
            else:
                call, given = one.chat.completions.create, {}
            with pytest.raises(ReplayMiss, match="nothing is stored"):
                found = call(model="m", messages=MESSAGES, **given)
                if inspect.isawaitable(found):
                    await found
        assert cache.stats().replay_misses == 2
