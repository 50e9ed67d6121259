"""Where encoded entries live: the contract of a store, and one module for each that is built in."""

from __future__ import annotations

from asynccache._clock import Clock
from asynccache._entry import ENVELOPE_BYTES
from asynccache._key import Namespace
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
