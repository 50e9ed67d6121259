"""The cache on Redis against a plain model: the machine that memory and disk are put through."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import initialize, invariant, precondition, run_state_machine_as_test

from asynccache.stores.redis import RedisStore
from tests.core.test_state_machine import CacheMachine
from tests.helpers.redis_servers import Cluster, Valkey

# Redis has the time from nobody: here it passes by taking it off what every key has left. All times
# of the machine are whole seconds, so rounding up makes good what really passes meanwhile.
AGE = """
for _, name in ipairs(redis.call('KEYS', '*')) do
  local left = redis.call('PTTL', name)
  if left >= 0 then
    left = math.ceil(left / 1000) - tonumber(ARGV[1])
    if left > 0 then
      redis.call('PEXPIRE', name, left * 1000)
    else
      redis.call('DEL', name)
    end
  end
end
"""


class RedisMachine(CacheMachine):
    """Does to caches over one Redis what it does to a model; nothing of Redis is made up."""

    kind = "redis"
    url = ""
    nodes: Any = ()

    @initialize()
    def start(self):
        for node in self.nodes:
            node.flushall()
        super().start(lossy=False)

    def new_store(self):
        return RedisStore(self.url, timeout=10, clock=self.clock)

    def time_passes(self, seconds):
        self.age(seconds)
        super().time_passes(seconds)

    async def happen(self, what, door, key, value, *, asking):
        if what == "time":
            self.age(5)
        return await super().happen(what, door, key, value, asking=asking)

    @precondition(lambda self: hasattr(self, "runner"))
    @invariant()
    def no_time_has_passed(self):
        self.age(0)

    def age(self, seconds):
        for node in self.nodes:
            node.eval(AGE, 0, seconds)


@pytest.mark.parametrize(("kind", "examples"), [("server", 100), ("cluster", 50)])
def test_the_cache_on_redis_does_as_a_plain_model(kind, examples):
    """In whatever order things happen, the cache on Redis answers as a dict with expiries would."""
    with ExitStack() as stack:
        where = stack.enter_context(Valkey() if kind == "server" else Cluster())
        servers = [where] if kind == "server" else where.nodes

        class Machine(RedisMachine):
            url = where.url
            nodes = tuple(stack.enter_context(server.client()) for server in servers)

        run_state_machine_as_test(
            Machine, settings=settings(max_examples=examples, stateful_step_count=40)
        )


def test_the_machine_is_not_blind():
    """A store that loses a deletion is found out: the machine fails where it should."""

    class Forgetful(RedisStore):
        async def delete_many(self, namespace, keys):
            await asyncio.sleep(0)
            return len(keys)

    with Valkey() as where, where.client() as client:

        class Machine(RedisMachine):
            url = where.url
            nodes = (client,)

            def new_store(self):
                return Forgetful(self.url, timeout=10, clock=self.clock)

        with pytest.raises(AssertionError):
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    max_examples=60,
                    stateful_step_count=30,
                    phases=[Phase.generate],  # found is enough
                    report_multiple_bugs=False,
                    print_blob=False,
                    database=None,
                ),
            )
