"""What Redis does in one step each: claim and look, store and release, and the like.

A lease is a string: ``+`` if somebody waits for it and ``-`` if nobody does, ten digits that say
how often it was renewed, and its token. Only what somebody waits for is published. ``MGET`` reads
where ``GET`` would, as it takes what isn't a string for absent.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final

from asynccache.stores.base import Lease

_HEAD: Final = 11  # bytes of a lease before its token
_WOKEN: Final = """
local held = redis.call('MGET', KEYS[2])[1]
if held then
  if ARGV[3] ~= '' and string.sub(held, 12) == ARGV[3] then
    redis.call('UNLINK', KEYS[2])
  end
  if string.sub(held, 1, 1) == '+' then
    redis.pcall('PUBLISH', ARGV[1], ARGV[2])
  end
end
"""  # publishing may be forbidden: who waits looks again by itself


class Script:
    """A script, by its source and by the digest that a server may know it by."""

    __slots__ = ("_call", "_source_call")

    def __init__(self, source: str, keys: int) -> None:
        text = source.encode()
        # Not for secrecy: the protocol names scripts by their SHA-1.
        digest = sha1(text, usedforsecurity=False).hexdigest().encode()
        self._call = (b"EVALSHA", digest, b"%d" % keys)
        self._source_call = (b"EVAL", text, b"%d" % keys)

    def command(self, *arguments: bytes) -> tuple[bytes, ...]:
        """Return the command that runs it by its digest."""
        return self._call + arguments

    def in_full(self, command: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Return the same command by its source, which a server keeps from then on."""
        return self._source_call + command[3:]


# keys: entry, lease. Arguments: channel, key, token or nothing, value, milliseconds, if absent.
# Milliseconds: 0 is for ever, -1 is over already.
STORE: Final = Script(
    """
local written = 1
if ARGV[6] == '1' and redis.call('EXISTS', KEYS[1]) == 1 then
  written = 0
elseif ARGV[5] == '0' then
  redis.call('SET', KEYS[1], ARGV[4])
elseif ARGV[5] == '-1' then
  redis.call('UNLINK', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
end
"""
    + _WOKEN
    + "return written",
    keys=2,
)

# keys: entry, lease. Arguments: channel, key, nothing.
DELETE: Final = Script(
    "local deleted = redis.call('UNLINK', KEYS[1])" + _WOKEN + "return deleted", keys=2
)

# keys: entry, lease. Arguments: channel, key, token.
RELEASE: Final = Script(_WOKEN + "return 1", keys=2)

# keys: entry, lease. Arguments: token, milliseconds, renewals and token that may be taken over.
# A token that holds the lease already is granted it again: its claim was sent twice.
CLAIM: Final = Script(
    """
local held = redis.call('MGET', KEYS[2])[1]
local holder = false
if not held then
  redis.call('SET', KEYS[2], '-0000000000' .. ARGV[1], 'PX', ARGV[2])
elseif string.sub(held, 12) == ARGV[1] or string.sub(held, 2) == ARGV[3] then
  redis.call('SET', KEYS[2], string.sub(held, 1, 1) .. '0000000000' .. ARGV[1], 'PX', ARGV[2])
else
  holder = held
  if string.sub(held, 1, 1) ~= '+' then
    redis.call('SETRANGE', KEYS[2], 0, '+')
  end
end
return {holder, redis.call('MGET', KEYS[1])[1]}
""",
    keys=2,
)

# keys: lease. Arguments: token, milliseconds.
RENEW: Final = Script(
    """
local held = redis.call('MGET', KEYS[1])[1]
if not held or string.sub(held, 12) ~= ARGV[1] then
  return 0
end
local renewals = string.format('%010d', (tonumber(string.sub(held, 2, 11)) or 0) + 1)
redis.call('SET', KEYS[1], string.sub(held, 1, 1) .. renewals .. ARGV[1], 'PX', ARGV[2])
return 1
""",
    keys=1,
)

# keys: lease. Notes that somebody waits; returns the milliseconds it lasts, -2 if nobody holds it.
AWAIT: Final = Script(
    """
local held = redis.call('MGET', KEYS[1])[1]
if held and string.sub(held, 1, 1) ~= '+' then
  redis.call('SETRANGE', KEYS[1], 0, '+')
end
return redis.call('PTTL', KEYS[1])
""",
    keys=1,
)


def expected(lease: Lease | None) -> bytes:
    """Return how `CLAIM` is told of a lease that may be taken over."""
    return b"" if lease is None else b"%010d" % lease.renewals + lease.token


def lease_in(key: bytes, held: bytes) -> Lease:
    """Return the lease that `CLAIM` found held."""
    renewals = held[1:_HEAD]
    return Lease(key, held[_HEAD:], int(renewals) if renewals.isdigit() else 0)
