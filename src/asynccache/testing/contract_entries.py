"""The part of the store contract about entries: batches, bytes, namespaces, expiry, scan."""
# ruff: noqa: S101, PLR2004 - tests: assertions, and numbers that are clearest as numbers

from __future__ import annotations

import anyio
import pytest

from asynccache.entries.entry import ENVELOPE_BYTES, decode_head
from asynccache.stores.base import UNKNOWN, Record, Store
from asynccache.testing.clock import ManualClock
from asynccache.testing.contract_parts import (
    AWAY,
    HOME,
    TENANT,
    body_of,
    get,
    key_of,
    needs,
    record_of,
    scanned,
)

_SIZES = (0, 1, ENVELOPE_BYTES - 1, ENVELOPE_BYTES, 4096, 65_536, 65_537, 300_000, 3_000_000)


class EntryContract:
    """What every store promises about entries; part of `StoreContract`."""

    async def test_empty_batches_do_nothing(self, store: Store) -> None:
        """An empty batch is allowed everywhere and answered with nothing."""
        assert list(await store.get_many(HOME, [])) == []
        assert list(await store.head_many(HOME, [])) == []
        assert list(await store.set_many(HOME, [])) == []
        assert await store.delete_many(HOME, []) == 0

    async def test_absence_is_none(self, store: Store) -> None:
        """What was never set is None, never an error."""
        assert list(await store.get_many(HOME, [key_of("no")])) == [None]
        assert list(await store.head_many(HOME, [key_of("no")])) == [None]
        assert store.peek(HOME, key_of("no")) in (None, UNKNOWN)
        assert await store.delete_many(HOME, [key_of("no")]) == 0
        assert await store.clear(HOME) == 0
        assert await scanned(store) == []

    async def test_batches_are_answered_in_their_order(self, store: Store) -> None:
        """Answers stand where their keys stand; a key given twice is answered twice."""
        written = await store.set_many(HOME, [record_of("a"), record_of("b")])
        assert list(written) == [True, True]
        keys = [key_of(name) for name in ("b", "none", "a", "b")]
        a, b = body_of("a"), body_of("b")
        assert list(await store.get_many(HOME, keys)) == [b, None, a, b]
        heads = [body and body[:ENVELOPE_BYTES] for body in (b, None, a, b)]
        assert list(await store.head_many(HOME, keys)) == heads

    async def test_a_thousand_keys_at_once(self, store: Store) -> None:
        """Large batches are served like small ones."""
        names = range(1000)
        keys = [key_of(name) for name in names]
        assert list(await store.set_many(HOME, [record_of(n) for n in names])) == [True] * 1000
        assert list(await store.get_many(HOME, keys)) == [body_of(n) for n in names]
        heads = await store.head_many(HOME, keys)
        assert list(heads) == [body_of(n)[:ENVELOPE_BYTES] for n in names]
        assert await store.delete_many(HOME, keys) == 1000
        assert list(await store.get_many(HOME, keys)) == [None] * 1000

    async def test_peek_is_right_or_unknown(self, store: Store) -> None:
        """An inline read never says anything else than a lookup would."""
        await store.set_many(HOME, [record_of("a")])
        await store.get_many(HOME, [key_of("a")])
        assert store.peek(HOME, key_of("a")) in (body_of("a"), UNKNOWN)
        await store.delete_many(HOME, [key_of("a")])
        assert store.peek(HOME, key_of("a")) in (None, UNKNOWN)

    @needs("inline")
    async def test_peek_answers(self, store: Store) -> None:
        """A store that says it reads inline does so for a small entry that was just read."""
        await store.set_many(HOME, [record_of("a")])
        await store.get_many(HOME, [key_of("a")])
        assert store.peek(HOME, key_of("a")) == body_of("a")

    @pytest.mark.parametrize("size", _SIZES)
    async def test_bytes_come_back_as_they_were(self, store: Store, size: int) -> None:
        """Bodies of any size, also too small to be one of ours, are returned byte for byte."""
        body = body_of("opaque", size)[-size:] if size else b""
        await store.set_many(HOME, [Record(key=key_of("opaque"), body=body)])
        assert await get(store, "opaque") == body
        assert list(await store.head_many(HOME, [key_of("opaque")])) == [body[:ENVELOPE_BYTES]]
        assert store.peek(HOME, key_of("opaque")) in (body, UNKNOWN)

    async def test_namespaces_are_kept_apart(self, store: Store) -> None:
        """One key in two namespaces, or under two tenants, is two entries."""
        key = key_of("same")
        for space in (HOME, TENANT, AWAY):
            await store.set_many(space, [Record(key=key, body=body_of(space.text))])
        for space in (HOME, TENANT, AWAY):
            assert list(await store.get_many(space, [key])) == [body_of(space.text)]
            assert store.peek(space, key) in (body_of(space.text), UNKNOWN)
        assert await store.delete_many(TENANT, [key]) == 1
        assert [await get(store, "same", s) is None for s in (HOME, TENANT, AWAY)] == [
            False, True, False,
        ]  # fmt: skip

    async def test_clear_is_exact(self, store: Store) -> None:
        """Clearing empties one namespace, counts it, and leaves every other as it was."""
        for space, count in ((HOME, 700), (TENANT, 3), (AWAY, 2)):
            await store.set_many(space, [record_of(n) for n in range(count)])
        assert await store.clear(HOME) == 700
        assert await scanned(store) == []
        assert list(await store.get_many(HOME, [key_of(0), key_of(699)])) == [None, None]
        assert store.peek(HOME, key_of(0)) in (None, UNKNOWN)
        assert len(await scanned(store, TENANT)) == 3
        assert len(await scanned(store, AWAY)) == 2
        await store.set_many(HOME, [record_of(0)])
        assert await get(store, 0) == body_of(0)
        assert await store.clear(TENANT) == 3
        assert len(await scanned(store)) == 1

    async def test_deletes_are_counted(self, store: Store) -> None:
        """A delete counts what was there, once, and removes nothing else."""
        await store.set_many(HOME, [record_of(n) for n in range(3)])
        assert await store.delete_many(HOME, [key_of(n) for n in (0, 1, 1, 99)]) == 2
        assert [await get(store, n) for n in range(3)] == [None, None, body_of(2)]

    async def test_the_last_set_stands(self, store: Store) -> None:
        """Setting again replaces the whole entry, also within one batch, larger or smaller."""
        for size in (100, 400_000, 10):
            await store.set_many(HOME, [Record(key=key_of("a"), body=body_of(size, size))])
            assert await get(store, "a") == body_of(size, size)
            assert store.peek(HOME, key_of("a")) in (body_of(size, size), UNKNOWN)
        twice = [Record(key=key_of("a"), body=body_of(n)) for n in (1, 2)]
        assert list(await store.set_many(HOME, twice)) == [True, True]
        assert await get(store, "a") == body_of(2)
        assert len(await scanned(store)) == 1

    async def test_if_absent_never_replaces(self, store: Store) -> None:
        """With ``if_absent`` what is there stands, and the answer says so."""
        first = Record(key=key_of("a"), body=body_of(1), if_absent=True)
        second = Record(key=key_of("a"), body=body_of(2), if_absent=True)
        assert list(await store.set_many(HOME, [first, second])) == [True, False]
        assert list(await store.set_many(HOME, [second, record_of("b")])) == [False, True]
        assert await get(store, "a") == body_of(1)
        await store.delete_many(HOME, [key_of("a")])
        assert list(await store.set_many(HOME, [second])) == [True]
        assert await get(store, "a") == body_of(2)

    async def test_one_of_many_writers_is_first(self, store: Store) -> None:
        """Of fifty writers that only write where nothing is, one writes."""
        written: dict[int, bool] = {}

        async def write(n: int) -> None:
            record = Record(key=key_of("a"), body=body_of(n), if_absent=True)
            (written[n],) = await store.set_many(HOME, [record])

        async with anyio.create_task_group() as group:
            for n in range(50):
                group.start_soon(write, n)
        (winner,) = [n for n, done in written.items() if done]
        assert await get(store, "a") == body_of(winner)

    async def test_the_expired_is_never_returned(self, store: Store) -> None:
        """An entry past its time is nowhere to be seen, and counts as absent."""
        await store.set_many(HOME, [record_of("a", expires=1), record_of("b")])
        assert await get(store, "a") is None
        assert list(await store.head_many(HOME, [key_of("a")])) == [None]
        assert store.peek(HOME, key_of("a")) in (None, UNKNOWN)
        assert len(await scanned(store)) == 1
        assert list(await store.set_many(HOME, [record_of("a", if_absent=True)])) == [True]
        assert await get(store, "a") == body_of("a")

    @needs("clock")
    async def test_entries_expire_by_the_clock(self, store: Store, clock: ManualClock) -> None:
        """An entry is there until the microsecond it expires, and not from then on."""
        record = record_of("a", expires=clock.time_us() + 60_000_000)
        await store.set_many(HOME, [record, record_of("for ever")])
        clock.advance(59.999_999)
        assert await get(store, "a") == body_of("a")
        assert list(await store.set_many(HOME, [record_of("a", if_absent=True)])) == [False]
        clock.advance(0.000_001)
        assert list(await store.head_many(HOME, [key_of("a")])) == [None]
        assert len(await scanned(store)) == 1
        assert await get(store, "a") is None
        assert store.peek(HOME, key_of("a")) in (None, UNKNOWN)
        clock.advance(10 * 365 * 86400)
        assert await get(store, "for ever") == body_of("for ever")

    async def test_scan_shows_every_entry_once(self, store: Store) -> None:
        """All pages together are exactly the envelopes of a namespace."""
        await store.set_many(HOME, [record_of(n) for n in range(2500)])
        await store.set_many(AWAY, [record_of("away")])
        heads = [decode_head(envelope) for envelope in await scanned(store)]
        assert len(heads) == 2500
        assert {head.key for head in heads if head} == {key_of(n) for n in range(2500)}

    async def test_scan_holds_while_entries_come_and_go(self, store: Store) -> None:
        """What stays during a scan is shown exactly once, whatever is set and deleted meanwhile."""
        await store.set_many(HOME, [record_of(n) for n in range(3000)])
        found: list[bytes] = []
        cursor: str | None = None
        for turn in range(1000):
            page = await store.scan(HOME, cursor)
            found.extend(page.envelopes)
            cursor = page.cursor
            if cursor is None:
                break
            await store.delete_many(HOME, [key_of(n) for n in range(turn * 100, turn * 100 + 50)])
            await store.set_many(HOME, [record_of((turn, n)) for n in range(50)])
            await store.set_many(HOME, [record_of(n) for n in range(2000, 2200)])
        assert cursor is None
        assert len(found) == len(set(found))
        staying = {body_of(n)[:ENVELOPE_BYTES] for n in range(2000, 3000)}
        assert staying <= set(found)
