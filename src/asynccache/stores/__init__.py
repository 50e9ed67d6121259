"""Where encoded entries live: the contract of a store, and one module for each that is built in."""

from __future__ import annotations

from asynccache.entries.entry import ENVELOPE_BYTES
from asynccache.keys.key import Namespace
from asynccache.runtime.clock import Clock
from asynccache.stores.base import (
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
    "ENVELOPE_BYTES",
    "UNKNOWN",
    "Capabilities",
    "Claim",
    "Claimed",
    "Clock",
    "Lease",
    "Namespace",
    "Page",
    "Record",
    "Store",
    "Unknown",
]
