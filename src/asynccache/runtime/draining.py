"""Reads on after the last piece that matters, so that a connection can be used again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from contextlib import suppress
from typing import Final

_WITHIN: Final = 1.0  # seconds


async def drained(pieces: AsyncIterable[bytes]) -> None:
    """Read what is left of a body, for a moment at most. What happens then matters to nobody."""
    with suppress(Exception):
        async with asyncio.timeout(_WITHIN):
            async for _ in pieces:
                pass
