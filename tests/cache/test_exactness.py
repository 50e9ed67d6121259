"""Values of all types, nested at will: what comes out of a cache is what was made, or nothing."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import fractions
import itertools
import pathlib
import tracemalloc
import uuid
from array import array
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import given, strategies as st

from asynccache import MISSING, Cache
from asynccache.entries.values import decode_value, encode_exactly
from asynccache.stores.base import UNKNOWN

KEYS = itertools.count()


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Word(enum.StrEnum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Bits(enum.Flag):
    ONE = 1
    TWO = 2


@dataclasses.dataclass
class Dot:
    x: Any = 0


class Point(msgspec.Struct):
    x: Any = 0


class Pair(NamedTuple):
    x: Any
    y: Any


class Model(pydantic.BaseModel):
    x: Any = None


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Real(float):
    pass


class Bytes(bytes):
    pass


class Items(list):
    pass


class Table(dict):
    pass


MOMENTS = st.datetimes(timezones=st.none() | st.just(dt.UTC) | st.sampled_from([
    ZoneInfo("Europe/Paris"), ZoneInfo("UTC"), dt.timezone(dt.timedelta(hours=2)),
]))  # fmt: skip
PLAIN = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats()
    | st.text(st.characters()) | st.binary(max_size=3)
)  # fmt: skip
TYPED = [
    (st.binary(max_size=3).map(bytearray), bytearray),
    (st.binary(max_size=3).map(lambda data: memoryview(data)[:]), memoryview),
    (st.decimals(), Decimal), (st.uuids(), uuid.UUID), (MOMENTS, dt.datetime),
    (st.dates(), dt.date), (st.times(), dt.time), (st.timedeltas(), dt.timedelta),
    (st.sampled_from(Colour), Colour), (st.sampled_from(Word), Word),
    (st.sampled_from(Number), Number), (st.sampled_from([*Bits, Bits(3), Bits(0)]), Bits),
    (st.builds(Dot, st.integers(0, 9)), Dot), (st.builds(Point, st.text()), Point),
    (st.builds(Model, x=st.integers(0, 9)), Model), (st.builds(Pair, st.none(), st.none()), Pair),
    (st.integers(), int), (st.text(), str), (st.binary(max_size=3), bytes), (st.floats(), float),
]  # fmt: skip
ODD: list[Any] = [
    MISSING, UNKNOWN, msgspec.UNSET, msgspec.NODEFAULT, msgspec.Raw(b"\x01"), ..., NotImplemented,
    msgspec.msgpack.Ext(5, b"x"), array("i", [1]), 1j, range(3),
    fractions.Fraction(1, 2), pathlib.PurePosixPath("a"), Text("a"), Whole(1), Real(1.5),
    Bytes(b"x"), Items([1]), Table(a=1), ValueError("x"), int, print, object(),
]  # fmt: skip
WRITABLE = st.binary(max_size=3).map(lambda data: memoryview(bytearray(data)))
SCALARS = (
    PLAIN | st.one_of([values for values, _ in TYPED]) | st.sampled_from(ODD) | WRITABLE
)  # fmt: skip


def hashable(value):
    """Tell whether a value may be in a set, and be a key."""
    try:
        hash(value)
    except (TypeError, ValueError):  # the latter of a memoryview that can be written
        return False
    return True


def nested(inner):
    """Return values made of others."""
    lists = st.lists(inner, max_size=3)
    tables = st.dictionaries(inner.filter(hashable), inner, max_size=3)
    return (
        lists | lists.map(tuple) | tables | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        | st.lists(inner.filter(hashable), max_size=3).map(frozenset)
        | st.lists(inner.filter(hashable), max_size=3).map(set)
        | lists.map(Items) | lists.map(collections.deque) | tables.map(Table)
        | tables.map(lambda items: collections.defaultdict(int, items))
        | tables.map(collections.OrderedDict)
        | st.builds(Dot, inner) | st.builds(Point, inner) | st.builds(Pair, inner, inner)
        | st.builds(Model, x=inner)
    )  # fmt: skip


VALUES = st.recursive(SCALARS, nested, max_leaves=5)


def named(pairs):
    """Return typed values made of others."""
    values: Any
    kind: Any
    values, kind = pairs
    lists = st.lists(values, max_size=3)
    each, several, table = list[kind], tuple[kind, ...], dict[str, kind]
    return st.sampled_from([
        (lists, each), (lists.map(tuple), several), (lists.map(collections.deque), each),
        (st.dictionaries(st.text(max_size=2), values, max_size=3), table),
        (values | st.none(), kind | None), (lists.map(tuple), each), (lists, several), (lists, Any),
    ])  # fmt: skip


KINDS = st.recursive(
    st.sampled_from(TYPED), lambda inner: inner.flatmap(named), max_leaves=3
).flatmap(lambda pair: pair[0].map(lambda value: (value, pair[1])))


def contents(value):
    """Return what a value holds, such that equality tells; itself if it is one thing."""
    if isinstance(value, dict):
        return [part for pair in value.items() for part in pair]
    if isinstance(value, list | tuple | collections.deque):
        return list(value)
    if isinstance(value, Dot | Point | Model):
        return [value.x]
    if isinstance(value, memoryview):
        return [bytes(value), value.readonly]
    if isinstance(value, ValueError):
        return list(value.args)
    return value


def same(one, other):
    """Tell whether two values are the same throughout, in type, content and order."""
    if one is other or type(one) is not type(other):
        return one is other
    if isinstance(one, set | frozenset):
        return len(one) == len(other) and all(any(same(a, b) for b in other) for a in one)
    parts, others = contents(one), contents(other)
    if parts is not one:
        return len(parts) == len(others) and all(map(same, parts, others))
    if isinstance(one, float | complex | Decimal | dt.time):  # -0.0, nan
        return repr(one) == repr(other)
    if isinstance(one, dt.datetime):  # a fixed offset may be known by another class
        fixed = other.tzinfo is dt.UTC and one.tzinfo == ZoneInfo("UTC")
        return repr(one.replace(tzinfo=other.tzinfo) if fixed else one) == repr(other)
    return bool(one == other)


@pytest.fixture(scope="module")
def cache():
    """An open cache."""
    with Cache.memory() as opened:
        yield opened


def kept(cache, value, kind):
    """Have a value made and set, and found again; return whether it was kept, and all of these."""
    key = next(KEYS)
    made = []

    def create():
        made.append(value)
        return value

    found = [cache.get_or_create(key, create, type=kind) for _ in range(2)]
    stored = len(made) == 1
    if stored:
        assert cache.set(-key - 1, value, type=kind)
        found += [cache.get(-key - 1, type=kind), *cache.get_many([-key - 1], type=kind)]
    else:
        words = r"type=|can't be cached" if kind is Any else None
        with pytest.raises(TypeError, match=words):
            cache.set(-key - 1, value, type=kind)
    return stored, found


@given(VALUES)
def test_plain_data_comes_back_as_it_was_or_is_refused(cache, value):
    """Without a type, no value of any type comes back as something else, on no way."""
    _, found = kept(cache, value, Any)
    assert all(same(value, one) for one in found)


@given(KINDS)
def test_a_value_of_a_type_comes_back_as_it_was_or_is_refused(cache, typed):
    """With a type, neither, but for what the docs except: that is the same on each way."""
    value, kind = typed
    _, found = kept(cache, value, kind)
    assert all(same(found[0], one) for one in found)
    assert same(value, found[0])


SURE = (bytearray, bytes, uuid.UUID, dt.date, dt.timedelta, Colour, Word, Number, Dot, Model, Pair)


@given(KINDS)
def test_what_can_be_kept_is_kept(cache, typed):
    """To refuse is no way out: what its type gives back is stored."""
    value, kind = typed
    stored, _ = kept(cache, value, kind)
    assert stored or kind not in SURE


def peak(work):
    """Return how much memory some work takes at most, and what it returns."""
    tracemalloc.start()
    try:
        made = work()
        return tracemalloc.get_traced_memory()[1], made
    finally:
        tracemalloc.stop()


def test_plain_data_is_copied_once_to_be_compared():
    """A large value holds the loop for one copy of it, whatever its numbers look like in bytes."""
    value = [{"a": number, "b": [1, 2, number]} for number in range(20_000)]
    copied, data = peak(lambda: encode_exactly(value, Any))
    once, _ = peak(lambda: decode_value(data, Any))
    assert copied < 2 * once
