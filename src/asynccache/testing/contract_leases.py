"""The part of the store contract that is about leases and messages."""
# ruff: noqa: S101 - tests: assertions, and numbers that are clearest as numbers

from __future__ import annotations

import secrets
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint
from msgspec.structs import replace

from asynccache.keys.key import Namespace
from asynccache.stores.base import Claim, Claimed, Lease, Store
from asynccache.testing.contract_parts import (
    AWAY,
    HOME,
    PATIENCE,
    TENANT,
    Elsewhere,
    body_of,
    key_of,
    needs,
    record_of,
)

_TTL = 120.0  # seconds: no lease of these tests runs out while they run
_LONG = 3600.0  # seconds: a wait that is not woken ends the test by `PATIENCE`


def _token() -> bytes:
    return secrets.token_bytes(16)


async def _claim(
    store: Store,
    name: object,
    token: bytes,
    *,
    expect: Lease | None = None,
    namespace: Namespace = HOME,
) -> Claimed:
    claim = Claim(key=key_of(name), token=token, expect=expect)
    (answer,) = await store.claim(namespace, [claim], _TTL)
    return answer


class LeaseContract:
    """What a store with leases promises; part of `StoreContract`."""

    @needs("leases")
    async def test_a_lease_is_granted_once(self, store: Store) -> None:
        """Who asks first holds the lease; who asks then learns who holds it."""
        mine, other = _token(), _token()
        first = await _claim(store, "a", mine)
        assert first.granted
        assert first.entry is None
        second = await _claim(store, "a", other)
        assert not second.granted
        assert second.holder == Lease(key_of("a"), mine, 0)
        assert (await _claim(store, "b", other)).granted

    @needs("leases")
    async def test_claims_come_in_batches(self, store: Store) -> None:
        """A batch of claims is answered in its order; an empty one does nothing."""
        held = _token()
        await _claim(store, 1, held)
        tokens = [_token() for _ in range(4)]
        names = [0, 1, 2, 0]
        claims = [Claim(key=key_of(n), token=t) for n, t in zip(names, tokens, strict=True)]
        answers = await store.claim(HOME, claims, _TTL)
        assert [answer.granted for answer in answers] == [True, False, True, False]
        assert answers[1].holder == Lease(key_of(1), held, 0)
        assert answers[3].holder == Lease(key_of(0), tokens[0], 0)
        leases = [Lease(key_of(n), t) for n, t in zip(names, tokens, strict=True)]
        assert list(await store.renew(HOME, leases, _TTL)) == [True, False, True, False]
        await store.release(HOME, leases)
        again = await store.claim(HOME, claims[:3], _TTL)
        assert [answer.granted for answer in again] == [True, False, True]
        assert list(await store.claim(HOME, [], _TTL)) == []
        assert list(await store.renew(HOME, [], _TTL)) == []
        await store.release(HOME, [])

    @needs("leases")
    async def test_a_thousand_claims_at_once(self, store: Store) -> None:
        """A large batch of claims is served like a small one."""
        token = _token()
        claims = [Claim(key=key_of(n), token=token) for n in range(1000)]
        assert all(answer.granted for answer in await store.claim(HOME, claims, _TTL))
        leases = [Lease(claim.key, token) for claim in claims]
        assert list(await store.renew(HOME, leases, _TTL)) == [True] * 1000
        await store.release(HOME, leases)
        assert all(answer.granted for answer in await store.claim(HOME, claims, _TTL))

    @needs("leases")
    async def test_claiming_looks_for_the_entry(self, store: Store) -> None:
        """A claim that is granted tells of an entry that is there, and of no expired one."""
        await store.set_many(HOME, [record_of("a"), record_of("big", size=1_000_000)])
        await store.set_many(HOME, [record_of("old", expires=1)])
        claims = [Claim(key=key_of(name), token=_token()) for name in ("a", "big", "old", "none")]
        answers = await store.claim(HOME, claims, _TTL)
        assert [answer.granted for answer in answers] == [True] * 4
        assert [answer.entry for answer in answers] == [
            body_of("a"), body_of("big", 1_000_000), None, None,
        ]  # fmt: skip

    @needs("leases", "glances")
    async def test_who_waits_finds_the_entry_alone(self, store: Store) -> None:
        """A waiting claim takes no lease where an entry is, and one where there is neither."""

        async def wait(name: str) -> Claimed:
            (answer,) = await store.claim(
                HOME, [Claim(key=key_of(name), token=_token(), waiting=True)], _TTL
            )
            return answer

        await store.set_many(HOME, [record_of("a")])
        assert await wait("a") == Claimed(granted=False, entry=body_of("a"))
        mine = _token()
        assert (await _claim(store, "a", mine)).granted
        held = Claimed(granted=False, entry=body_of("a"), holder=Lease(key_of("a"), mine))
        assert await wait("a") == held
        await store.delete_many(HOME, [key_of("a")])
        assert await wait("a") == Claimed(granted=False, holder=Lease(key_of("a"), mine))
        await store.release(HOME, [Lease(key_of("a"), mine)])
        assert await wait("a") == Claimed(granted=True)

    @needs("leases")
    async def test_leases_keep_to_their_namespace(self, store: Store) -> None:
        """A lease says nothing about the same key elsewhere."""
        for space in (HOME, TENANT, AWAY):
            assert (await _claim(store, "a", space.text.encode(), namespace=space)).granted
        await store.release(TENANT, [Lease(key_of("a"), TENANT.text.encode())])
        assert not (await _claim(store, "a", _token(), namespace=HOME)).granted
        assert (await _claim(store, "a", _token(), namespace=TENANT)).granted

    @needs("leases")
    async def test_a_released_lease_can_be_had(self, store: Store) -> None:
        """After a release the next claim is granted; releasing again harms nobody."""
        mine, next_one = _token(), _token()
        await _claim(store, "a", mine)
        await store.release(HOME, [Lease(key_of("a"), mine)])
        assert (await _claim(store, "a", next_one)).granted
        await store.release(HOME, [Lease(key_of("a"), mine)])
        assert not (await _claim(store, "a", _token())).granted
        assert list(await store.renew(HOME, [Lease(key_of("a"), next_one)], _TTL)) == [True]

    @needs("leases")
    async def test_only_the_holder_renews_and_releases(self, store: Store) -> None:
        """Another token neither renews nor releases a lease."""
        mine, stranger = _token(), _token()
        await _claim(store, "a", mine)
        assert list(await store.renew(HOME, [Lease(key_of("a"), stranger)], _TTL)) == [False]
        await store.release(HOME, [Lease(key_of("a"), stranger)])
        refused = await _claim(store, "a", stranger)
        assert not refused.granted
        assert refused.holder == Lease(key_of("a"), mine, 0)
        assert list(await store.renew(HOME, [Lease(key_of("none"), mine)], _TTL)) == [False]

    @needs("leases")
    async def test_renewals_are_counted(self, store: Store) -> None:
        """Each renewal raises the count that others see, so that they know the holder is alive."""
        mine = _token()
        await _claim(store, "a", mine)
        for count in (1, 2, 3):
            assert list(await store.renew(HOME, [Lease(key_of("a"), mine)], _TTL)) == [True]
            answer = await _claim(store, "a", _token())
            assert answer.holder == Lease(key_of("a"), mine, count)

    @needs("leases")
    async def test_takeover_needs_an_unchanged_lease(self, store: Store) -> None:
        """A lease is taken over only from the state the claimant has seen."""
        mine, other = _token(), _token()
        await _claim(store, "a", mine)
        seen = (await _claim(store, "a", other)).holder
        await store.renew(HOME, [Lease(key_of("a"), mine)], _TTL)
        late = await _claim(store, "a", other, expect=seen)
        assert not late.granted
        assert late.holder == Lease(key_of("a"), mine, 1)
        wrong = Lease(key_of("a"), _token(), 1)
        assert not (await _claim(store, "a", other, expect=wrong)).granted
        assert (await _claim(store, "a", other, expect=late.holder)).granted
        assert list(await store.renew(HOME, [Lease(key_of("a"), mine, 1)], _TTL)) == [False]
        await store.release(HOME, [Lease(key_of("a"), mine, 1)])
        assert (await _claim(store, "a", _token())).holder == Lease(key_of("a"), other, 0)

    @needs("leases")
    async def test_an_expected_lease_may_be_gone(self, store: Store) -> None:
        """Who expects a lease that was released meanwhile is granted it like anybody."""
        mine = _token()
        await _claim(store, "a", mine)
        seen = (await _claim(store, "a", _token())).holder
        await store.release(HOME, [Lease(key_of("a"), mine)])
        assert (await _claim(store, "a", _token(), expect=seen)).granted

    @needs("leases")
    async def test_a_storm_of_claims_grants_one(self, store: Store, elsewhere: Elsewhere) -> None:
        """Of two hundred claims for one key, from several loops at once, one is granted."""
        granted: list[bytes] = []

        async def one() -> None:
            token = _token()
            if (await _claim(store, "a", token)).granted:
                granted.append(token)

        async def many() -> None:
            async with anyio.create_task_group() as group:
                for _ in range(50):
                    group.start_soon(one)

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(elsewhere, many)
                await many()
        assert len(granted) == 1
        assert (await _claim(store, "a", _token())).holder == Lease(key_of("a"), granted[0], 0)

    @needs("leases")
    async def test_a_storm_of_takeovers_grants_one(self, store: Store) -> None:
        """Of many who take over the same dead lease, one succeeds."""
        await _claim(store, "a", _token())
        seen = (await _claim(store, "a", _token())).holder
        claims = [Claim(key=key_of("a"), token=_token(), expect=seen) for _ in range(50)]
        answers: list[Claimed] = []

        async def take(claim: Claim) -> None:
            answers.extend(await store.claim(HOME, [claim], _TTL))

        async with anyio.create_task_group() as group:
            for claim in claims:
                group.start_soon(take, claim)
        assert sum(answer.granted for answer in answers) == 1

    @needs("leases")
    async def test_entries_and_leases_are_two_things(self, store: Store) -> None:
        """Neither setting nor deleting an entry touches its lease, and the other way round."""
        mine = _token()
        await _claim(store, "a", mine)
        await store.set_many(HOME, [record_of("a")])
        assert not (await _claim(store, "a", _token())).granted
        await store.delete_many(HOME, [key_of("a")])
        assert not (await _claim(store, "a", _token())).granted
        await store.set_many(HOME, [record_of("a")])
        await store.release(HOME, [Lease(key_of("a"), mine)])
        assert (await _claim(store, "a", _token())).entry == body_of("a")

    @needs("leases", "releases")
    async def test_setting_gives_back_the_lease_it_names(self, store: Store) -> None:
        """A record's lease ends with its writing, if it is still held by that token."""
        mine, other = _token(), _token()
        await _claim(store, "a", mine)
        for token, granted in ((other, False), (mine, True)):
            record = replace(record_of("a"), lease=Lease(key_of("a"), token))
            assert list(await store.set_many(HOME, [record])) == [True]
            again = await _claim(store, "a", _token())
            assert again.granted is granted
            assert again.entry == body_of("a")

    @needs("leases", "messages")
    @pytest.mark.parametrize("deleted", [False, True])
    async def test_setting_and_deleting_wake(self, store: Store, *, deleted: bool) -> None:
        """Who waits for a key is woken when its entry is set, and when it is deleted."""
        await _claim(store, "a", _token())

        async def put() -> None:
            await store.set_many(HOME, [record_of("a")])

        async def delete() -> None:
            await store.delete_many(HOME, [key_of("a")])

        async def wait(woken: anyio.Event) -> None:
            await store.wait(HOME, key_of("a"), _LONG)
            woken.set()

        # A change may come before the waiter is known to the store: then again, more patiently.
        for attempt in range(1, 20):
            await (put() if deleted else delete())
            woken = anyio.Event()
            async with anyio.create_task_group() as group:
                group.start_soon(wait, woken)
                await anyio.sleep(0.001 * attempt**2)
                await (delete() if deleted else put())
                with anyio.move_on_after(0.05 * attempt):
                    await woken.wait()
                group.cancel_scope.cancel()
            if woken.is_set():
                return
        pytest.fail("nobody was woken")

    @needs("leases", "messages")
    async def test_a_release_wakes_all(self, store: Store, elsewhere: Elsewhere) -> None:
        """A release in one loop wakes everybody who waits, in this loop and in others."""
        mine = _token()
        await _claim(store, "a", mine)
        wait = partial(store.wait, HOME, key_of("a"), _LONG)
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(wait)
                group.start_soon(elsewhere, wait)
                group.start_soon(elsewhere, wait)
                for _ in range(10):
                    await checkpoint()
                await elsewhere(partial(store.release, HOME, [Lease(key_of("a"), mine)]))

    @needs("leases", "messages")
    async def test_nothing_is_waited_for_without_a_lease(self, store: Store) -> None:
        """A release that came before the wait isn't slept through."""
        mine = _token()
        await _claim(store, "a", mine)
        await store.release(HOME, [Lease(key_of("a"), mine)])
        with anyio.fail_after(PATIENCE):
            await store.wait(HOME, key_of("a"), _LONG)

    @needs("leases", "messages")
    async def test_waiting_ends(self, store: Store) -> None:
        """A wait ends at its timeout, or when it is cancelled, and the store goes on working."""
        await _claim(store, "a", _token())
        with anyio.fail_after(PATIENCE):
            await store.wait(HOME, key_of("a"), 0.01)
        with anyio.move_on_after(0.01) as scope:
            await store.wait(HOME, key_of("a"), _LONG)
        assert scope.cancelled_caught
        assert not (await _claim(store, "a", _token())).granted
