"""LiteLLM's cache, with everything in the request in its keys."""

from __future__ import annotations

from asynccache.errors import from_extra

with from_extra("litellm"):
    from asynccache.integrations.litellm.cache import LiteLLMCache

__all__ = ["LiteLLMCache"]
