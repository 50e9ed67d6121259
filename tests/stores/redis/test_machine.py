"""The cache on Redis against a plain model: the machine that memory and disk are put through."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis.stateful import initialize, invariant, precondition

from asynccache.stores.redis import RedisStore
from tests.helpers.remote_stores import RemoteMachine, finds_fault, run_machine

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


@pytest.fixture
def machine_on():
    """Return the machine's class for a server or a cluster; it makes nothing of Redis up."""
    with ExitStack() as stack:

        def made(where):
            nodes = [
                stack.enter_context(node.client()) for node in getattr(where, "nodes", [where])
            ]

            class RedisMachine(RemoteMachine):
                kind = "redis"

                @initialize()
                def start(self):
                    where.empty()
                    super().start(lossy=False)

                def new_store(self):
                    return RedisStore(where.url, timeout=10, clock=self.clock)

                @precondition(lambda self: hasattr(self, "runner"))
                @invariant()
                def no_time_has_passed(self):
                    self.age(0)

                def age(self, seconds):
                    for node in nodes:
                        node.eval(AGE, 0, seconds)

            return RedisMachine

        yield made


@pytest.mark.parametrize(("kind", "examples"), [("server", 100), ("cluster", 50)])
def test_the_cache_on_redis_does_as_a_plain_model(request, machine_on, kind, examples):
    """In whatever order things happen, the cache on Redis answers as a dict with expiries would."""
    run_machine(machine_on(request.getfixturevalue(kind)), examples)


def test_the_machine_is_not_blind(server, machine_on):
    """A store that loses a deletion is found out: the machine fails where it should."""
    finds_fault(machine_on(server), "delete_many", len)
