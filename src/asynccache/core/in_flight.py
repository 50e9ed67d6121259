"""The in-flight table: the flights of one event loop that can be joined."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from asynccache.core.calls import Mode
from asynccache.core.flight import Flight
from asynccache.entries.entry import Entry


class InFlightTable:
    """Flights under way. A refresh joins refreshes alone; a replay's flight calls nobody.

    At most one flight stands here for a key and a kind of mode. Its end removes it, and so does
    whatever invalidates it.
    """

    __slots__ = ("_by_mode", "_flights", "_refreshes")

    def __init__(self) -> None:
        self._flights: Final[dict[bytes, Flight]] = {}
        self._refreshes: Final[dict[bytes, Flight]] = {}
        self._by_mode: Final[dict[Mode, dict[bytes, Flight]]] = {
            "read_write": self._flights,
            "read_only": self._flights,
            "refresh": self._refreshes,
            "replay": {},
        }

    def find(self, mode: Mode, key: bytes) -> Flight | None:
        """Return the flight of the mode's own kind for a key."""
        return self._by_mode[mode].get(key)

    def refresh_of(self, key: bytes) -> Flight | None:
        """Return the refresh under way for a key."""
        return self._refreshes.get(key)

    def has_call(self, key: bytes) -> bool:
        """Tell whether a call is under way for a key."""
        return key in self._flights or key in self._refreshes

    def pending(self, key: bytes) -> Entry | None:
        """Return an answer that is whole and on its way into the store."""
        for flights in (self._refreshes, self._flights):
            flight = flights.get(key)
            if flight is not None and flight.entry is not None:
                return flight.answer()
        return None

    def add(self, mode: Mode, flight: Flight) -> None:
        """Let others of the mode's kind join a flight, instead of one there was for its key."""
        self._by_mode[mode][flight.key] = flight

    def remove(self, flight: Flight) -> None:
        """Let nobody join a flight any more; another one for its key stays."""
        for flights in self._by_mode.values():
            if flights.get(flight.key) is flight:
                del flights[flight.key]

    def matching(self, key: bytes | None) -> Iterator[Flight]:
        """Return the flights for a key, all of them for None."""
        for flights in (self._flights, self._refreshes):
            if key is None:
                yield from list(flights.values())
            elif key in flights:
                yield flights[key]
