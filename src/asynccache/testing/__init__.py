"""Public test doubles, and the contract that any store can be run through.

`ManualClock` and `FaultyStore` need nothing beyond the library. `StoreContract` and the fixtures in
`asynccache.testing.fixtures` need pytest, and say so when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynccache.testing.clock import ManualClock
from asynccache.testing.faulty import Call, FaultyStore
from asynccache.testing.gate import Gate

if TYPE_CHECKING:
    from asynccache.testing.contract import StoreContract

__all__ = ["Call", "FaultyStore", "Gate", "ManualClock", "StoreContract"]


def __getattr__(name: str) -> object:
    if name != "StoreContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import pytest
    except ImportError as exc:
        raise ImportError("StoreContract is run by pytest: install pytest") from exc
    # Before they are imported, so that a failed assertion shows the values it compared.
    pytest.register_assert_rewrite("asynccache.testing.contract")
    from asynccache.testing.contract import StoreContract

    return StoreContract
