"""The few private parts that tests look at, each reached in one place."""

from __future__ import annotations


def store_of(cache):
    """Return the store behind a cache."""
    return cache._lifecycle.store


def put_store(cache, store):
    """Give a cache that isn't open another store."""
    cache._lifecycle.store = store


def engines_of(cache):
    """Return the engines of a cache's loops."""
    return cache._lifecycle.engines()


def engine_of(cache):
    """Return the running loop's engine."""
    from asynccache.cache.in_force import current_options

    return cache._lifecycle.scope(current_options()).engine


def flights_of(engine):
    """Return the flights of an engine that reads and writes can join."""
    return list(engine._in_flight.flights.values())


def has_call(engine, key):
    """Tell whether a call is under way for a key."""
    table = engine._in_flight
    return key in table.flights or key in table.refreshes


def sync_frames(cache):
    """Return the blocks of a cache's synchronous view that haven't been left."""
    return cache._sync_view._frames


async def fetch(engine, call):
    """Make a call through an engine, as the ways in do."""
    return await engine.fetch(call.mode, call.key, call.caller, lambda: call)


def callers_of(engine):
    """Return how many callers wait for an engine's flights."""
    return sum(flight.caller_count for flight in engine._flying.values())


def callers_of_refreshes(engine):
    """Return how many callers wait for an engine's refreshes."""
    return sum(flight.caller_count for flight in engine._in_flight.refreshes.values())
