"""AutoGen 0.7's chat completion clients, cached."""

from __future__ import annotations

from asynccache.errors import from_extra

with from_extra("autogen"):
    from asynccache.integrations.autogen.client import (
        CachedChatCompletionClient,
        CachedChatCompletionClientConfig,
    )

__all__ = ["CachedChatCompletionClient", "CachedChatCompletionClientConfig"]
