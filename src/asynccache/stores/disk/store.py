"""The disk store: entries and leases in SQLite, large bodies in files, shared by processes."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from functools import partial
from threading import get_ident
from typing import Any, Final

from asynccache.entries.entry import ENVELOPE_BYTES
from asynccache.errors import StoreFullError, StoreUnavailableError
from asynccache.keys.canonical import absolute
from asynccache.keys.key import Namespace
from asynccache.runtime.clock import SYSTEM_CLOCK, Clock
from asynccache.runtime.forks import forget_in_child
from asynccache.stores.base import (
    UNKNOWN,
    Capabilities,
    Claim,
    Claimed,
    Counted,
    Lease,
    Page,
    Record,
    Store,
    Unknown,
)
from asynccache.stores.disk.bodies import BodyFile, discard, write_body
from asynccache.stores.disk.database import is_full
from asynccache.stores.disk.evict import Evictor
from asynccache.stores.disk.folder import Folder
from asynccache.stores.disk.forks import is_torn
from asynccache.stores.disk.leases import LeaseWork
from asynccache.stores.disk.session import Session
from asynccache.stores.disk.writer import Clear, Delete, MakeRoom, Put, Renew

_ROW_BYTES: Final = 256 * 2**10  # a larger body has a file of its own
_CLEAR_ROWS: Final = 1000  # per transaction, so that other writers get in between
_TORN: Final = (
    "This process was forked while a thread of its parent was in the middle of a database, so that"
    " no disk store can be used in it: fork when the store is idle, or spawn processes instead."
)


class DiskStore(Store):
    """Entries in ``<root>/<seed>/asynccache.db``, for any number of processes on one machine.

    A set survives kill -9 and power loss. Sets of all loops that are queued at the same time are
    one transaction. What lies there is private to its owner.

    Args:
        root: The folder of all seeds; made if it isn't there, private to its owner.
        seed: The folder below it that `open` opens; other namespaces' follow at first use.
        max_bytes: The limit on all that lies under ``root``, and half of its volume at most; beyond
            it the least recently used entries are evicted.
        max_entry_bytes: The largest entry that is read, whoever has written it.
        gitignore: Keep what is made out of version control with a ``.gitignore`` of its own.
        clock: Tells the time that entries expire by.
    """

    capabilities = Capabilities(inline=True, leases=True, generations=True, durable=True)

    def __init__(
        self,
        root: str | os.PathLike[str] = ".cache",
        seed: str = "42",
        *,
        max_bytes: int = 10 * 2**30,
        max_entry_bytes: int = 32 * 2**20,
        gitignore: bool = True,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._root = absolute(root)  # links are to be seen, not resolved
        self._seed = seed
        self._largest = max_entry_bytes + ENVELOPE_BYTES
        self._start = partial(Session, self._root, clock, max_bytes=max_bytes, gitignore=gitignore)
        self._session: Session | None = None
        self._folders: dict[str, Folder] = {}  # the session's own, one look-up nearer
        self._dropped = 0
        self._evictor: Evictor | None = None
        self._lock = threading.Lock()
        forget_in_child(self)

    async def open(self, *, read_only: bool = False) -> None:
        """Open the seed's folder and start the threads. Once open, it is opened by everyone.

        Args:
            read_only: Create and write nothing; where nothing is, the store is empty.

        Raises:
            StoreRefusedError: What is there isn't safe to use; the message says what to change.
            StoreUnavailableError: This process was forked in the middle of a parent's write.
            StoreError: It can't be opened.
        """
        session = self._session
        if session is not None:
            if read_only or not session.read_only:
                return
            await self.aclose()
        if is_torn():
            raise StoreUnavailableError(_TORN)
        session = self._start(read_only=read_only)
        try:
            await session.read(self._seed, lambda _: None, None)
            with self._lock:
                if self._session is None:  # else another loop was faster
                    self._dropped = 0
                    self._session, self._folders = session, session.folders
                    self._evictor = session.writer.evictor
        finally:
            if self._session is not session:
                await session.aclose()

    async def aclose(self) -> None:
        """Write what is queued and close, on a worker that goes on if the caller is cancelled."""
        with self._lock:
            session, self._session = self._session, None
            self._folders = {}
        if session is not None:
            await session.aclose()

    def peek(self, namespace: Namespace, key: bytes) -> bytes | Unknown | None:
        """Return what this thread's own reader finds; `UNKNOWN` until an awaited read opens one."""
        try:
            inline = self._folders[namespace.seed].inline[get_ident()]
        except KeyError:
            return UNKNOWN
        return inline.peek(namespace.owner, key)

    async def get_many(self, namespace: Namespace, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return entries, read on a worker."""
        return await self._entries(namespace, keys, heads=False)

    async def head_many(
        self, namespace: Namespace, keys: Sequence[bytes]
    ) -> Sequence[bytes | None]:
        """Return envelopes, read on a worker."""
        return await self._entries(namespace, keys, heads=True)

    async def set_many(self, namespace: Namespace, records: Sequence[Record]) -> Sequence[bool]:
        """Write entries; returns once they survive power loss.

        Raises:
            StoreFullError: The disk is full, or too slow for what is queued already; nothing of
                this batch is written.
            StoreError: It can't be written.
        """
        session, seed = self._opened(), namespace.seed
        bodies: dict[int, BodyFile] = {}
        size = 0
        written: asyncio.Future[list[bool]] | None = None
        try:
            for at, record in enumerate(records):
                if len(record.body) > _ROW_BYTES:
                    folder = await session.writable(seed)
                    write = partial(
                        write_body, folder.bodies, record.key, record.body, session.files
                    )
                    try:
                        bodies[at] = await write()
                    except StoreFullError as exc:
                        if not is_full(exc.__cause__):
                            raise
                        need = MakeRoom(seed, namespace.owner, len(record.body))
                        await session.writer.submit(need)
                        bodies[at] = await write()
                else:
                    size += len(record.body)
            written = session.writer.submit(Put(seed, namespace.owner, records, bodies), size)
            return await written
        except BaseException as exc:
            # Once it is queued, the writer goes on with it and its files, if the caller doesn't.
            if written is None:
                discard(bodies.values(), session.files)
            self._dropped += len(records) * isinstance(exc, StoreFullError)
            raise

    async def delete_many(self, namespace: Namespace, keys: Sequence[bytes]) -> int:
        """Remove entries, in the order of all that is queued."""
        work = Delete(namespace.seed, namespace.owner, keys)
        deleted: int = await self._opened().writer.submit(work)
        return deleted

    async def clear(self, namespace: Namespace) -> int:
        """Remove all entries of a namespace, a thousand per transaction."""
        writer = self._opened().writer
        cleared, rows = 0, _CLEAR_ROWS
        after: int | None = None
        while True:
            work = Clear(namespace.seed, namespace.owner, after, rows)
            try:
                live, after = await writer.submit(work)
            except StoreFullError:
                if rows == 1:
                    return cleared + await self._opened().remove(namespace.seed, namespace.owner)
                rows = rows // 8 or 1  # which takes less of the log
                continue
            cleared += int(live)
            if after is None:
                return cleared

    async def scan(self, namespace: Namespace, cursor: str | None = None) -> Page:
        """Return a page of envelopes, in the order of their digests."""
        return await self._opened().read(
            namespace.seed,
            lambda folder: folder.page(namespace.owner, cursor),
            Page(envelopes=(), cursor=None),
        )

    async def generations(
        self, namespace: Namespace, keys: Sequence[bytes], *, renew: bool = False
    ) -> Sequence[bytes]:
        """Return the generation of each key; new ones survive power loss."""
        session, seed = self._opened(), namespace.seed
        if renew:
            renewed: list[bytes] = await session.writer.submit(Renew(seed, namespace.owner, keys))
            return renewed
        return [await session.read(seed, Folder.generation, b"-1")] * len(keys)

    async def claim(
        self,
        namespace: Namespace,
        claims: Sequence[Claim],
        ttl: float,
    ) -> Sequence[Claimed]:
        """Claim leases, all of one turn in one transaction, then look for the entries.

        ``ttl`` isn't enforced: who waits judges by its own clock, and takes over.
        """
        claimed: list[Claimed] = await self._lease(namespace, claims)
        return claimed

    async def renew(
        self,
        namespace: Namespace,
        leases: Sequence[Lease],
        ttl: float,
    ) -> Sequence[bool]:
        """Raise renewal counts; False where another token holds the lease, or nobody."""
        renewed: list[bool] = await self._lease(namespace, leases)
        return renewed

    async def release(self, namespace: Namespace, leases: Sequence[Lease]) -> None:
        """Give leases back."""
        await self._lease(namespace, leases, release=True)

    def counters(self) -> dict[Counted, int]:
        """Return what was evicted, purged as expired, and dropped since the store was opened."""
        if self._evictor is None:
            return {}
        return {
            "evicted": self._evictor.evicted,
            "dropped": self._dropped,
            "expired": self._evictor.expired,
        }

    def _opened(self) -> Session:
        if self._session is None:
            raise StoreUnavailableError("The disk store isn't open in this process: open it first.")
        return self._session

    def _lease(
        self, namespace: Namespace, items: Sequence[Claim | Lease], *, release: bool = False
    ) -> asyncio.Future[Any]:
        work = LeaseWork(namespace.seed, namespace.owner, items, release)
        return self._opened().leaser.submit(work)

    async def _entries(
        self, namespace: Namespace, keys: Sequence[bytes], *, heads: bool
    ) -> Sequence[bytes | None]:
        return await self._opened().read(
            namespace.seed,
            lambda folder: folder.entries(
                namespace.owner, keys, heads=heads, largest=self._largest
            ),
            [None] * len(keys),
        )

    def forget(self) -> None:
        """Forget, in a forked child, what belongs to the parent."""
        self._session, self._folders = None, {}
        self._lock = threading.Lock()
