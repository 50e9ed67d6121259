"""What Redis does in one step each: claim and look, store and release, and the like.

A lease is a string: ``+`` if somebody waits for it and ``-`` if nobody does, ten digits that say
how often it was renewed, and its token. Only what somebody waits for is published. ``MGET`` reads
where ``GET`` would, as it takes what isn't a string for absent.

A hash holds the generations of all keys with one tag. It begins with an ``id`` that is never used
again, and ``n`` counts the changes of keys. A generation is the id and the count when it was read.
Each changed key has a field with the number of its last change; of many, the older ones are
dropped, and ``floor`` is the number up to which they are. Where there is no hash no generation is
valid, so a change has nothing to note then, and removing the hash changes all keys.
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
_ID: Final = 16  # bytes of a hash's id
_FIELD: Final = 16  # hexadecimal digits of a key: another with the same ones is refused, no more
_FIELDS: Final = 256  # of a hash: Redis keeps twice as many in one compact piece
_DAY: Final = 86_400  # seconds that a hash lasts
_GENERATIONS: Final = f"""
local function read_generation(id)
  local known = redis.pcall('HMGET', KEYS[#KEYS], 'id', 'n')
  if known.err then
    redis.call('UNLINK', KEYS[#KEYS])
    known = redis.call('HMGET', KEYS[#KEYS], 'id', 'n')
  end
  if not (known[1] and known[2]) then
    known = {{id, '0'}}
    redis.call('HSET', KEYS[#KEYS], 'id', id, 'n', '0')
  end
  if redis.call('PTTL', KEYS[#KEYS]) < {_DAY * 500} then
    redis.call('EXPIRE', KEYS[#KEYS], {_DAY})
  end
  return known[1] .. known[2]
end

local function has_generation(key, generation)
  local known = redis.pcall('HMGET', KEYS[#KEYS], 'id', 'floor', string.sub(key, 3, {_FIELD + 2}))
  return known[1] == string.sub(generation, 1, {_ID})
    and math.max(tonumber(known[2]) or 0, tonumber(known[3]) or 0)
      <= tonumber(string.sub(generation, {_ID + 1}))
end

local function change(key)
  if redis.call('EXISTS', KEYS[#KEYS]) == 0 then
    return
  end
  local number = redis.pcall('HINCRBY', KEYS[#KEYS], 'n', 1)
  if type(number) ~= 'number' then
    redis.call('UNLINK', KEYS[#KEYS])
    return
  end
  redis.call('HSET', KEYS[#KEYS], string.sub(key, 3, {_FIELD + 2}), number)
  if redis.call('HLEN', KEYS[#KEYS]) >= {_FIELDS} then
    local floor = number - {_FIELDS // 2}
    local fields = redis.call('HGETALL', KEYS[#KEYS])
    for at = 1, #fields, 2 do
      if #fields[at] == {_FIELD} and tonumber(fields[at + 1]) <= floor then
        redis.call('HDEL', KEYS[#KEYS], fields[at])
      end
    end
    redis.call('HSET', KEYS[#KEYS], 'floor', floor)
  end
end
"""  # a full Redis counts nothing, and what isn't a hash is a stranger's: both are removed


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


# keys: entry, lease, generations. Arguments: channel, key, token or nothing, value, milliseconds,
# if absent, generation or nothing. Milliseconds: 0 is for ever, -1 is over already.
STORE: Final = Script(
    _GENERATIONS
    + """
local written = 1
if ARGV[7] ~= '' and not has_generation(ARGV[2], ARGV[7])
  or ARGV[6] == '1' and redis.call('EXISTS', KEYS[1]) == 1 then
  written = 0
elseif ARGV[5] == '0' then
  redis.call('SET', KEYS[1], ARGV[4])
elseif ARGV[5] == '-1' then
  redis.call('UNLINK', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
end
if written == 1 and ARGV[7] == '' then
  change(ARGV[2])
end
"""
    + _WOKEN
    + "return written",
    keys=3,
)

# keys: entry, lease, generations. Arguments: channel, key, nothing.
DELETE: Final = Script(
    _GENERATIONS
    + """
local deleted = redis.call('UNLINK', KEYS[1])
change(ARGV[2])
"""
    + _WOKEN
    + "return deleted",
    keys=3,
)

# keys: generations. Arguments: random bytes, key or nothing. A key that is given has a new one.
READ: Final = Script(
    _GENERATIONS
    + """
local generation = read_generation(ARGV[1])
if ARGV[2] ~= '' then
  change(ARGV[2])
  generation = read_generation(ARGV[1])
end
return generation
""",
    keys=1,
)

# keys: entry, lease. Arguments: channel, key, token.
RELEASE: Final = Script(_WOKEN + "return 1", keys=2)

# keys: entry, lease, generations. Arguments: token, milliseconds, renewals and token that may be
# taken over. A token that holds the lease already is granted it again: its claim was sent twice.
CLAIM: Final = Script(
    _GENERATIONS
    + """
local held = redis.call('MGET', KEYS[2])[1]
local entry = redis.call('MGET', KEYS[1])[1]
if held and string.sub(held, 12) ~= ARGV[1] and string.sub(held, 2) ~= ARGV[3] then
  if string.sub(held, 1, 1) ~= '+' then
    redis.call('SETRANGE', KEYS[2], 0, '+')
  end
  return {held, entry, false}
end
local generation = read_generation(ARGV[1])
local awaited = held and string.sub(held, 1, 1) or '-'
redis.call('SET', KEYS[2], awaited .. '0000000000' .. ARGV[1], 'PX', ARGV[2])
return {false, entry, generation}
""",
    keys=3,
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
