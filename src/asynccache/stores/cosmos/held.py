"""What this process knows of leases without asking: how its own stand, and which others hold."""

from __future__ import annotations

from typing import Final

_MOST: Final = 10_000  # leases: what was longest untouched is forgotten, and asked for when needed


class Held:
    """Remembers. Everything in it may be out of date: each change says what it builds on.

    Reading and changing one entry of a dict needs no lock.
    """

    def __init__(self) -> None:
        self._etags: dict[str, tuple[str, int]] = {}
        self._seen: dict[str, None] = {}

    def keep(self, token: str, etag: str, renewals: int) -> None:
        """Note how the item of one's own lease stands, which holds nothing else."""
        self._etags.pop(token, None)
        self._etags[token] = (etag, renewals)
        _trim(self._etags)

    def take(self, token: str) -> tuple[str, int] | None:
        """Return etag and renewals as noted, and forget them."""
        return self._etags.pop(token, None)

    def see(self, name: str) -> None:
        """Note that somebody holds an item's lease."""
        self._seen[name] = None
        _trim(self._seen)

    def seen(self, name: str) -> bool:
        """Tell whether an item was seen to be held, and forget it."""
        return self._seen.pop(name, _UNSEEN) is None


_UNSEEN: Final = object()


def _trim(noted: dict[str, object] | dict[str, None] | dict[str, tuple[str, int]]) -> None:
    while len(noted) > _MOST:
        noted.pop(next(iter(noted)), None)
