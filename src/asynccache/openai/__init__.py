"""The OpenAI SDK's client, cached: same type, same objects back, each request paid for once."""

from __future__ import annotations

from asynccache.openai._wrap import wrap

__all__ = ["wrap"]
