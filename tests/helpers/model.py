"""What a cache should do, said plainly: a dict of places, each with what it may hold."""

from __future__ import annotations

from reprlib import repr  # noqa: A004 - values may be long
from typing import NamedTuple

from asynccache import MISSING
from asynccache.keys.key import Namespace


class Place(NamedTuple):
    """Where an answer is kept."""

    namespace: Namespace
    key: object
    """As `repr`, since 1 and True are one key to a dict and two to the cache."""
    sample: int = 0


class Slot(NamedTuple):
    """What was put at a place."""

    value: object
    expires: float = 0
    """Seconds on the test's clock at which the answer expires; 0 is never."""
    kept_until: float = 0
    """Seconds at which the store forgets it; 0 is never."""
    sound: bool = True
    """Whether it is an answer: bytes that are damaged or another key's aren't."""


class Model:
    """A dict, a clock, and patience with a store that had to make room.

    Args:
        lossy: The store evicts: anything may be absent, and nothing may be wrong.
    """

    def __init__(self, *, lossy):
        self.lossy = lossy
        self.now = 0.0
        self._slots: dict[Place, list[Slot]] = {}

    def expiry(self, ttl):
        """When something recorded now expires."""
        return 0 if ttl is None else self.now + ttl

    def put(self, place, slot, *, surely=True):
        """Put something at a place; if not surely, what was there may be there still."""
        self._slots[place] = [slot] if surely else [*self._slots.get(place, ()), slot]

    def remove(self, place):
        """Empty a place."""
        self._slots.pop(place, None)

    def clear(self, namespace):
        """Empty all places of a namespace."""
        for place in self.places(namespace):
            del self._slots[place]

    def places(self, namespace):
        """All places of a namespace that may hold something the store still keeps."""
        return [p for p in self._slots if p.namespace == namespace and self.kept(p)]

    def kept(self, place):
        """What the store may hold at a place, sound or not."""
        return [slot for slot in self._slots.get(place, ()) if not 0 < slot.kept_until <= self.now]

    def visible(self, place):
        """Of that, what is an answer now."""
        kept = self.kept(place)
        return [slot for slot in kept if slot.sound and not 0 < slot.expires <= self.now]

    def surely_missing(self, place):
        """Whether a look at a place must find nothing."""
        return not self.visible(place)

    def surely_there(self, place):
        """Whether a look at a place must find an answer."""
        return not self.lossy and not self.surely_missing(place)

    def flawed(self, place):
        """Whether a look at a place meets bytes that are no answer (a lossy one may lack them)."""
        return len(self.kept(place)) > len(self.visible(place))

    def saw(self, place, value):
        """Check what was found at a place, and learn from it what is there."""
        visible = self.visible(place)
        if value is MISSING:
            assert not self.surely_there(place), f"{place} is gone, and held {repr(visible)}"
            # Evicted, if it was sound: it won't come back.
            self._slots[place] = [slot for slot in self.kept(place) if slot not in visible]
            return
        found = [slot for slot in visible if slot.value == value]
        assert found, f"{place} holds {repr(value)}, and should hold {repr(visible)}"
        self._slots[place] = found[-1:]
