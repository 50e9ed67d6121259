# TRANSITION: old names, until all callers have moved over. To be removed.
from __future__ import annotations

from asynccache.core.engine import Engine


class _Shelf:
    def __init__(self, engine):
        self.engine = engine

    def peek(self, namespace, key):
        return self.engine.client(namespace).peek(key)

    def ask(self, namespace, key):
        return self.engine.client(namespace).look_up(key)

    async def found(self, key, asked):
        (client,) = list(self.engine._clients.values())[:1]
        return await client.found(key, asked)

    def lane(self, namespace):
        return self.engine.client(namespace)


def _ride(self, flight, caller, *, started=False):
    async def go():
        entry = await flight.wait(caller, started=started)
        if entry is None:
            return None
        from msgspec import UNSET

        original = UNSET if flight.originals is None else flight.originals.pop()
        return self._served(entry, flight.outcome(started=started), original)

    return go()


_fetch = Engine.fetch


def fetch(self, mode, *rest, **named):
    if not rest:
        call = mode
        return _fetch(self, call.mode, call.key, call.caller, lambda: call)
    return _fetch(self, mode, *rest, **named)


async def _arrive(self, flight, caller, deadline, *, started):
    return await flight.wait_until(deadline, caller, started=started)


Engine.fetch = fetch
Engine.join = Engine._join
Engine.ride = _ride
Engine.arrive = _arrive
Engine.board = Engine.get_or_start
Engine.served = Engine._served
Engine.served_many = Engine.count_together
Engine.shelf = property(_Shelf)


def of_cache(cache, name):
    if name.startswith("_"):
        raise AttributeError(name)
    from asynccache.cache.in_force import current_options

    life = cache._lifecycle
    if name == "engine":
        return lambda: life.scope(current_options()).engine
    if name == "ttl_in_force":
        return lambda asked: asked if asked is not None else life.scope(current_options()).ttl
    if name == "rule_in_force":
        return lambda: life.scope(current_options()).store_if
    if name == "paced":

        async def paced():
            await cache._values._scope()

        return paced
    for owner in (life, cache._values):
        if hasattr(owner, name):
            return getattr(owner, name)
    raise AttributeError(name)
