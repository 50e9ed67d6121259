"""The OpenAI SDK's client, cached: same type, same objects back, each request paid for once."""

from __future__ import annotations

from asynccache.openai._version import check

check()

from asynccache.openai._wrap import wrap  # noqa: E402 - what is checked for is imported there
from asynccache.openai._wrapper import OpenAIWrapper  # noqa: E402 - as above

__all__ = ["OpenAIWrapper", "wrap"]
