"""The OpenAI SDK's client, cached: same type, same objects back, each request paid for once."""

from __future__ import annotations

from asynccache.openai._wrap import wrap
from asynccache.openai._wrapper import OpenAIWrapper

__all__ = ["OpenAIWrapper", "wrap"]
