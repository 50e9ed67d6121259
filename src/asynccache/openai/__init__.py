"""The OpenAI SDK's client, cached: same type, same objects back, each request paid for once."""

from __future__ import annotations

from asynccache.openai.version import check

check()

from asynccache.openai.wrapper.wrapper import OpenAIWrapper  # noqa: E402 - as above
from asynccache.openai.wrapping import wrap  # noqa: E402 - what is checked for is imported there

__all__ = ["OpenAIWrapper", "wrap"]
