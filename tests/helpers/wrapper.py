"""What the wrapper's tests say to it."""

from __future__ import annotations

import asyncio

from tests.helpers.openai_server import MESSAGES


def entry_of(api, **changes):
    """Return the words of a `config_list` that lead to the server."""
    return {
        "model": "gpt-4o", "api_key": "sk-a", "base_url": api.base_url, "max_retries": 0, **changes
    }  # fmt: skip


async def say(wrapper, **changes):
    """Make the one call that nearly all tests make; return the number of its answer."""
    response = await wrapper.acreate(**{"messages": MESSAGES, **changes})
    return int(response.id.removeprefix("chatcmpl-"))


def client_of(wrapper, number=0):
    """Return what a wrapper holds for one of its entries in this loop."""
    (clients,) = [
        clients
        for state, clients in wrapper._clients.items()
        if state.loop is asyncio.get_running_loop()
    ]
    return clients[number]
