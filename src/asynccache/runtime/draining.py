"""Reads on after the last piece that matters, so that a connection can be used again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from contextlib import suppress
from typing import Final

_WITHIN: Final = 0.05  # seconds: the end of a body mostly comes with its last piece


async def drained(pieces: AsyncIterable[bytes]) -> None:
    """Read what is left of a body, for a moment at most. What happens then matters to nobody.

    Its connection may be the only one of a pool that others wait for.
    """
    with suppress(Exception):
        async with asyncio.timeout(_WITHIN):
            async for _ in pieces:
                pass
