"""Walks over one namespace's keys by ``SCAN``, which never holds Redis up and may repeat itself."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Final

from asynccache.errors import StoreError
from asynccache.stores.redis.errors import mapped
from asynccache.stores.redis.keys import RedisNames
from asynccache.stores.redis.link import RedisLink

_COUNT: Final = (
    b"1000"  # buckets of Redis' table in one step: some hundred microseconds of its time
)
_PAGE: Final = 1000  # keys from which on a page ends
_STEPS: Final = 100  # in one page, however few of a large database's keys are ours
_SCANS: Final = 64  # that may be under way at once; the one longest idle is forgotten


class _Scan:
    """Where a scan has come to, and what it has shown: Redis may show it again."""

    __slots__ = ("cursor", "seen", "server")

    def __init__(self) -> None:
        self.server = 0
        self.cursor = b"0"
        self.seen: set[bytes] = set()


class Scans:
    """The scans that are under way in a store."""

    def __init__(self) -> None:
        self._scans: OrderedDict[str, _Scan] = OrderedDict()
        self._lock = threading.Lock()

    async def page(
        self, link: RedisLink, names: RedisNames, cursor: str | None
    ) -> tuple[list[bytes], str | None]:
        """Return the next keys of a scan, each only once, and the cursor of those after them."""
        if cursor is None:
            scan = _Scan()
        else:
            with self._lock:
                found = self._scans.pop(cursor, None)
            if found is None:
                raise StoreError("this scan is over: begin it anew, without a cursor")
            scan = found
        keys: list[bytes] = []
        for _ in range(_STEPS):
            keys.extend(await self._step(link, names, scan))
            if scan.server < 0:
                return keys, None
            if len(keys) >= _PAGE:
                break
        cursor = secrets.token_hex(8)
        with self._lock:
            self._scans[cursor] = scan
            while len(self._scans) > _SCANS:
                self._scans.popitem(last=False)
        return keys, cursor

    async def walk(self, link: RedisLink, names: RedisNames) -> AsyncIterator[list[bytes]]:
        """Yield all keys of a namespace, in batches."""
        scan = _Scan()
        while scan.server >= 0:
            keys = await self._step(link, names, scan)
            if keys:
                yield keys

    async def _step(self, link: RedisLink, names: RedisNames, scan: _Scan) -> list[bytes]:
        servers = await link.servers()
        command = (b"SCAN", scan.cursor, b"MATCH", names.pattern.encode(), b"COUNT", _COUNT)
        (reply,) = await servers[scan.server].ask([command])
        if isinstance(reply, Exception):
            raise mapped(reply) from reply
        scan.cursor, found = reply
        if scan.cursor == b"0":
            scan.server = scan.server + 1 if scan.server + 1 < len(servers) else -1
        keys: list[bytes] = []
        for name in found:
            key = names.key_of(name)
            if key is not None and key not in scan.seen:
                scan.seen.add(key)
                keys.append(key)
        return keys
