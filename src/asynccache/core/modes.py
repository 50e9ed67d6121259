"""The modes of a cache."""

from __future__ import annotations

from typing import Final, Literal, get_args

Mode = Literal["read_write", "read_only", "refresh", "replay", "off"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
STORING: Final = frozenset({"read_write", "refresh"})
"""Modes in which answers are stored."""
