"""Where encoded entries live: the contract of a store, and one module for each that is built in."""

from __future__ import annotations

from asynccache.stores._base import (
    UNKNOWN,
    Capabilities,
    Claim,
    Claimed,
    Lease,
    Page,
    Record,
    Store,
    Unknown,
)

__all__ = [
    "UNKNOWN",
    "Capabilities",
    "Claim",
    "Claimed",
    "Lease",
    "Page",
    "Record",
    "Store",
    "Unknown",
]
