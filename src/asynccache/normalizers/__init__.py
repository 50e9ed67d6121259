"""Ready functions for ``normalize=``, and what makes one of your own.

Example::

    Cache.disk(normalize=[normalizers.dates, normalizers.call_ids])
"""

from __future__ import annotations

from asynccache.keys.normalizer import Normalizer, normalizer
from asynccache.normalizers.calls import call_ids
from asynccache.normalizers.patterns import by_pattern, dates, uuids
from asynccache.normalizers.schemas import schema_order

__all__ = [
    "Normalizer",
    "by_pattern",
    "call_ids",
    "dates",
    "normalizer",
    "schema_order",
    "uuids",
]
