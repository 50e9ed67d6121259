"""The envelope: an entry comes back as it was, and anything else is a flaw, never an exception."""

from __future__ import annotations

import tracemalloc
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given, strategies as st
from msgspec import Raw

from asynccache.entries import entry as entry_module
from asynccache.entries.compression import compress
from asynccache.entries.entry import (
    ENVELOPE_BYTES,
    Entry,
    Flaw,
    Head,
    Meta,
    decode_entry,
    decode_head,
    decode_paths,
    encode_entry,
    encode_paths,
)

KEY = sha256(b"a").digest()
OTHER = sha256(b"b").digest()
NOW = 1_700_000_000_000_000
LIMIT = 2**20
LARGE = b"".join(b"event %d " % n for n in range(2000))  # enough to be compressed


def entry(*chunks, expires=0, **meta):
    """Return an entry of these chunks."""
    return Entry(KEY, NOW, expires, Meta("json", **meta), chunks)


def decoded(data, key=KEY, *, now=NOW, limit=LIMIT):
    """Return what bytes are to a reader."""
    return decode_entry(data, key, now=lambda: now, max_bytes=limit)


def forged(payload, *, codec=0, plain=None, stored=None, version=1, flags=0):
    """Return an envelope whose checksum is right around whatever it says."""
    plain = len(payload) if plain is None else plain
    stored = len(payload) if stored is None else stored
    head = entry_module._HEAD.pack(
        b"ayc\n", b"", version, flags, codec, KEY, NOW, 0, stored, plain, bytes(8)
    )  # fmt: skip
    summed = head[20:] + payload
    return head[:4] + sha256(summed).digest()[:16] + summed


SMALL_BYTES, LARGE_BYTES = encode_entry(entry(b'{"a":1}')), encode_entry(entry(LARGE))
BOTH = pytest.mark.parametrize("data", [SMALL_BYTES, LARGE_BYTES], ids=["plain", "compressed"])


def test_large_payloads_are_compressed():
    """Both codecs are in use in the tests below."""
    assert len(LARGE_BYTES) < len(LARGE) / 2
    assert len(SMALL_BYTES) > ENVELOPE_BYTES + 7


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
METAS = st.builds(
    Meta,
    kind=st.sampled_from(["json", "sse", "value"]),
    status=st.integers(100, 599),
    content_type=TEXT,
    headers=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
    model=TEXT,
    input_tokens=st.integers(0, 2**40),
    output_tokens=st.integers(0, 2**40),
    seconds=st.floats(0, 1e6),
    cut=st.booleans(),
    paths=st.dictionaries(TEXT, st.integers(0, 2**32 - 1), max_size=3).map(encode_paths),
)
CHUNKS = st.lists(st.binary(max_size=100) | st.binary(min_size=5000, max_size=9000), max_size=5)


@given(METAS, CHUNKS, st.binary(min_size=32, max_size=32), st.integers(NOW + 1, 2**63))
def test_an_entry_comes_back_as_it_was(meta, chunks, key, expires):
    """Every chunk, empty ones too, and all that is known of the answer survive the round trip."""
    made = Entry(key, NOW, expires, meta, tuple(chunks))
    data = encode_entry(made)
    back = decoded(data, key)
    assert isinstance(back, Entry)
    assert back == made
    assert decode_paths(back.meta.paths) == decode_paths(meta.paths)
    head = decode_head(data)
    assert head is not None
    assert head == Head(key, NOW, expires, len(data) - ENVELOPE_BYTES, head.plain_size)
    assert sum(map(len, chunks)) <= head.plain_size


def test_encoding_is_deterministic():
    """The same entry is the same bytes."""
    assert encode_entry(entry(LARGE)) == LARGE_BYTES


@BOTH
def test_any_flipped_byte_is_a_flaw(data):
    """Whichever byte is changed, in whatever way, the bytes are no answer."""
    for at in range(len(data)):
        for mask in (0x01, 0x80, 0xFF):
            changed = bytearray(data)
            changed[at] ^= mask
            assert isinstance(decoded(bytes(changed)), Flaw), (at, mask)


@given(st.data())
def test_any_damage_is_a_flaw(data):
    """Bytes with a piece replaced, cut out or put in are no answer, unless nothing changed."""
    good = data.draw(st.sampled_from([SMALL_BYTES, LARGE_BYTES]))
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, len(good)))
    changed = good[:start] + data.draw(st.binary(max_size=64)) + good[end:]
    assert isinstance(decoded(changed), Entry if changed == good else Flaw)


@BOTH
def test_any_cut_is_a_flaw(data):
    """A value that was cut short anywhere is no answer."""
    for size in range(len(data)):
        assert decoded(data[:size]) == Flaw("corrupt")


@BOTH
@pytest.mark.parametrize("more", [b"\x00", b"x" * 1000, SMALL_BYTES])
def test_any_extension_is_a_flaw(data, more):
    """A value with something behind it, or before it, is no answer."""
    assert decoded(data + more) == Flaw("corrupt")
    assert isinstance(decoded(more + data), Flaw)


@given(st.binary(max_size=400))
def test_foreign_bytes_are_a_flaw(data):
    """What somebody else stored is no answer, however it begins."""
    assert isinstance(decoded(data), Flaw)
    assert isinstance(decoded(b"ayc\n" + data), Flaw)
    assert isinstance(decoded(b"ayc\n\x01\x00\x00" + data), Flaw)
    assert decode_head(data) is None


@BOTH
def test_a_value_under_another_key_is_a_flaw(data):
    """A whole and intact entry is an answer to its own key alone."""
    assert decoded(data, OTHER) == Flaw("misplaced")


def test_the_expired_is_a_flaw():
    """An entry is an answer until the microsecond it expires."""
    data = encode_entry(entry(b"x", expires=NOW))
    assert isinstance(decoded(data, now=NOW - 1), Entry)
    assert decoded(data, now=NOW) == Flaw("expired")
    assert isinstance(decoded(SMALL_BYTES, now=2**62), Entry)


def test_what_expires_and_comes_from_the_future_is_a_flaw():
    """A clock that ran ahead wrote it, so nobody knows when it expires. Clocks differ a little."""
    minute = 60_000_000
    data = encode_entry(entry(b"x", expires=NOW + 1))
    assert isinstance(decoded(data, now=NOW - minute), Entry)
    assert decoded(data, now=NOW - minute - 1) == Flaw("expired")
    assert isinstance(decoded(SMALL_BYTES, now=0), Entry)


def test_a_store_that_ends_entries_by_itself_is_believed():
    """Where the store has seen to expiry, no clock of this machine is asked."""
    data = encode_entry(entry(b"x", expires=1))
    assert isinstance(decode_entry(data, KEY, now=None, max_bytes=LIMIT), Entry)


@pytest.mark.parametrize("change", [{"version": 0}, {"version": 2}, {"flags": 1}, {"codec": 2}])
def test_another_format_is_a_flaw(change):
    """What a newer or an unknown writer wrote is not guessed at."""
    payload = SMALL_BYTES[ENVELOPE_BYTES:]
    assert isinstance(decoded(forged(payload)), Entry)
    assert decoded(forged(payload, **change)) == Flaw("foreign")


def test_other_versions_have_no_head():
    """A scan passes over envelopes it can't read."""
    assert decode_head(forged(b"", version=2)) is None
    assert decode_head(SMALL_BYTES[: ENVELOPE_BYTES - 1]) is None
    assert decode_head(SMALL_BYTES[:ENVELOPE_BYTES]) == decode_head(SMALL_BYTES)


@pytest.mark.parametrize("claim", [{"plain": 2**62}, {"plain": LIMIT + 1}, {"stored": 2**62}])
@pytest.mark.parametrize("codec", [0, 1])
def test_a_claim_above_the_limit_allocates_nothing(claim, codec):
    """A size above the limit is refused by what the envelope says, before memory is asked for."""
    data = forged(b"x" * 100, codec=codec, **claim)
    tracemalloc.start()
    assert decoded(data) == Flaw("oversized")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_the_limit_is_on_the_plain_size():
    """An entry of exactly the limit is an answer, and of one byte more is not."""
    head = decode_head(LARGE_BYTES)
    assert head is not None
    plain = head.plain_size
    assert isinstance(decoded(LARGE_BYTES, limit=plain), Entry)
    assert decoded(LARGE_BYTES, limit=plain - 1) == Flaw("oversized")


PAYLOAD = msgspec.msgpack.encode(entry_module._Payload(Meta("json"), (LARGE,)))


@pytest.mark.parametrize("lie", [-len(PAYLOAD), -1000, -1, 1, 1000])
def test_a_payload_that_lies_about_its_size_is_a_flaw(lie):
    """Whatever the sum says, a compressed payload of another size than announced is no answer."""
    packed = compress(PAYLOAD)
    assert isinstance(decoded(forged(packed, codec=1, plain=len(PAYLOAD))), Entry)
    assert decoded(forged(packed, codec=1, plain=len(PAYLOAD) + lie)) == Flaw("corrupt")


def test_a_bomb_is_not_unpacked():
    """A payload that grows beyond what it announced is stopped there."""
    bomb = compress(bytes(2**26))
    assert len(bomb) < 10_000
    tracemalloc.start()
    assert decoded(forged(bomb, codec=1, plain=1000)) == Flaw("corrupt")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


NESTED = msgspec.msgpack.encode(entry_module._Payload(Meta("json", request=Raw(b"\x91\xc0")), ()))
DEEP = NESTED.replace(b"\x91\xc0", b"\x91" * 100_000 + b"\xc0")


@pytest.mark.parametrize(
    ("payload", "codec"),
    [
        (b"", 0), (b"\xc0", 0), (b"\x92\x90\x90", 0), (PAYLOAD + b"\x00", 0), (PAYLOAD[:-1], 0),
        (DEEP, 0), (b"", 1), (b"garbage", 1), (compress(PAYLOAD)[:-4], 1),
        (compress(b"garbage"), 1), (PAYLOAD, 1), (compress(PAYLOAD), 0),
    ],
)  # fmt: skip
def test_a_payload_that_is_none_is_a_flaw(payload, codec):
    """An intact envelope around what isn't a payload is no answer, and no exception."""
    assert decoded(forged(payload, codec=codec, plain=len(PAYLOAD))) == Flaw("corrupt")


def test_meta_from_a_newer_minor_version_is_read():
    """Fields added at the end of the metadata don't make older readers lose the answer."""
    meta = msgspec.msgpack.decode(msgspec.msgpack.encode(Meta("json", status=201, model="m")))
    payload = msgspec.msgpack.encode([[*meta, "a new field"], [b"x"]])
    back = decoded(forged(payload))
    assert isinstance(back, Entry)
    assert (back.meta.status, back.meta.model, back.chunks) == (201, "m", (b"x",))
