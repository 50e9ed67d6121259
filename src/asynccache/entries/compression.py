"""The zstd compression of what is stored; its module is loaded when it is first needed."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from typing import Any, Final

_LEVEL: Final = 3  # zstd's own default: higher levels cost more time than they save space


def compress(data: bytes | memoryview) -> bytes:
    """Return the data compressed."""
    compressed: bytes = _zstd().compress(data, _LEVEL)
    return compressed


def decompress(data: bytes | memoryview, limit: int) -> bytes:
    """Return the first bytes of compressed data, ``limit`` of them at most.

    Raises:
        ValueError: The data wasn't made by `compress`.
    """
    zstd = _zstd()
    try:
        plain: bytes = zstd.ZstdDecompressor().decompress(data, limit)
    except zstd.ZstdError as exc:
        raise ValueError("this isn't zstd data") from exc
    return plain


@cache
def _zstd() -> Any:  # noqa: ANN401 - one module under two names
    built_in = sys.version_info >= (3, 14)
    return importlib.import_module("compression.zstd" if built_in else "backports.zstd")
