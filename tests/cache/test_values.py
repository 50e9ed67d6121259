"""What is stored comes back as it was; what wouldn't is delivered and not stored."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import datetime as dt
import enum
import functools
import logging
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict
from zoneinfo import ZoneInfo

import msgspec
import pytest
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, Field, PrivateAttr, SecretStr

from asynccache import MISSING, Cache, options
from asynccache.cache.facade import VALUE_META, values_of
from asynccache.cache.values import packed
from tests.helpers.scenes import Scene

if TYPE_CHECKING:  # so that it is unknown
    from fractions import Fraction as Unknown

pytestmark = pytest.mark.anyio


class Login(BaseModel):
    """Its data don't say what the password is."""

    password: SecretStr


class Hidden(BaseModel):
    """One of its fields is left out of its data."""

    shown: int
    hidden: int = Field(default=0, exclude=True)


class Base(BaseModel):
    """A field's class."""

    a: int


class Derived(Base):
    """One that is derived from it."""

    b: int


class Holder(BaseModel):
    """Its data don't say of which class its items are."""

    items: list[Base]


class Private(BaseModel):
    """It has a private attribute."""

    a: int
    _counted: int = PrivateAttr(0)


class Aliased(BaseModel):
    """Its fields have all kinds of aliases."""

    read: int = Field(default=0, validation_alias="READ")
    written: int = Field(default=0, serialization_alias="WRITTEN")
    both: int = Field(default=0, alias="BOTH")


class Raw(BaseModel):
    """Bytes that are no text are no JSON."""

    data: bytes


@dataclasses.dataclass
class Point:
    """Plain data of a class of one's own."""

    x: int


@dataclasses.dataclass
class Deep(Point):
    """One with more in it."""

    y: int


class Pair(NamedTuple):
    """A tuple with names."""

    a: int
    b: int


class Colour(enum.StrEnum):
    """A text with a name."""

    RED = "red"


def counted(private):
    """Return a model whose private attribute was set."""
    model = Private(a=1)
    model._counted = private
    return model


def completion():
    """Return an answer of the SDK's, with the id that it notes on it."""
    answer = ChatCompletion.model_validate(
        {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "logprobs": None,
                    "message": {"role": "assistant", "content": "Hi", "refusal": None, "odd": 1},
                }
            ],
        }
    )
    answer._request_id = "req-1"
    return answer


@pytest.fixture
async def cache():
    """An open cache."""
    async with Cache.memory() as opened:
        yield opened


class Made:
    """Makes a value, and counts how often."""

    def __init__(self, value):
        """Take the value."""
        self.value = value
        self.calls = 0

    async def __call__(self):
        """Make it."""
        self.calls += 1
        await asyncio.sleep(0)
        return self.value


EXACT: list[tuple[Any, Any]] = [
    (Base(a=1), Base),
    ([Base(a=1)], list[Base]),
    (Hidden(shown=1), Hidden),
    (Aliased.model_validate({"READ": 1, "written": 2, "BOTH": 3}), Aliased),
    (Raw(data=b"text"), Raw),
    (counted(0), Private),
    (completion(), ChatCompletion),
    (Point(1), Point),
    (Pair(1, 2), Pair),
    (Colour.RED, Colour),
    ((1, {2}), tuple[int, set[int]]),
    (dt.datetime(2026, 1, 2, 3), dt.datetime),  # noqa: DTZ001 - it has no zone, and is to have none
    (dt.datetime(2026, 1, 2, tzinfo=dt.UTC), dt.datetime),
    ({"a": [1, 2.5, None, True, b"x"], 1: "y"}, Any),
    (-0.0, float),
    (b"", bytes),
    (bytearray(b"x"), bytearray),
    ([b"x", "\u0105"], Any),
    ({(1, "a"): 3}, Any),
]


@dataclasses.dataclass
class Loose:
    """It says nothing of what it holds."""

    held: Any


class LooseStruct(msgspec.Struct):
    """Neither does this."""

    held: dict[str, Any]


class LoosePair(NamedTuple):
    """Nor this."""

    a: Any
    b: int


class LooseDict(TypedDict):
    """Nor this."""

    held: Any


class LooseModel(BaseModel):
    """Nor this."""

    held: Any
    items: list[Any] = []


class Nothing:
    """An object with nothing in it."""

    def __repr__(self):
        return "Nothing()"


INEXACT: list[tuple[Any, Any]] = [
    (Login(password=SecretStr("secret")), Login),
    ({"login": Login(password=SecretStr("secret"))}, dict[str, Login]),
    (Hidden(shown=1, hidden=2), Hidden),
    (Holder(items=[Derived(a=1, b=2)]), Holder),
    (Derived(a=1, b=2), Base),
    (Raw(data=b"\xff"), Raw),
    (counted(1), Private),
    (Base(a=1), Any),
    (Point(1), Any),
    (Deep(1, 2), Point),
    ((1, 2), Any),
    (Colour.RED, Any),
    (dt.datetime(2026, 1, 2, tzinfo=ZoneInfo("Europe/Paris")), dt.datetime),
    ({"a": 1}, list[int]),
    ("1", int),
    (None, int),
    (Nothing(), Any),
    (threading.Lock, Any),
    (2**80, int),
    ("\ud800", str),
    (bytearray(b"x"), Any),
    ({"a": [bytearray(b"x")]}, Any),
    (bytearray(b"x"), bytes),
    (b"x", bytearray),
    ([bytearray(b"x")], list[memoryview]),
    (memoryview(b"x"), Any),
    (memoryview(bytearray(b"x")), memoryview),
    (MISSING, Any),
    (msgspec.UNSET, Any),
    (msgspec.Raw(b"\x01"), Any),
    ({(1, frozenset({2})): 3}, Any),
    # Where a type says nothing of a part, that part is as without a type.
    ({"a": Colour.RED}, dict[str, Any]),
    ([1, (2,)], list[Any]),
    ([collections.defaultdict(int, a=1)], list[object]),
    ({"a": [{"b": Colour.RED}]}, dict[str, list[dict[str, Any]]]),
    ((1, Colour.RED), tuple[int, Any]),
    ([collections.Counter("a")], list),
    ({"a": Colour.RED}, dict[str, Any] | list[Any]),
    ({"a": Colour.RED}, dict[str, Any] | None),
    (Loose(Colour.RED), Loose),
    ([LooseStruct({"a": Colour.RED})], list[LooseStruct]),
    (LoosePair(Colour.RED, 1), LoosePair),
    ({"held": Colour.RED}, LooseDict),
    (LooseModel(held={"a": [Colour.RED]}), LooseModel),
    (LooseModel(held=None, items=[Colour.RED]), LooseModel | None),
]


@pytest.mark.parametrize(("value", "kind"), EXACT, ids=repr)
async def test_what_comes_back_as_it_was_is_stored(cache, value, kind):
    """First and later callers have the same value, of the same type, and it is paid for once."""
    made = Made(value)
    for _ in range(2):
        found = await cache.get_or_create("k", made, type=kind)
        assert type(found) is type(value)
        assert found == value
        assert repr(found) == repr(value)
    assert made.calls == 1
    assert cache.stats().not_stored == {}


@pytest.mark.parametrize(("value", "kind"), INEXACT)
async def test_what_would_come_back_otherwise_is_delivered_and_not_stored(
    cache, caplog, value, kind
):
    """Its caller has it as it was, each time anew; it is counted, and told once, without it."""
    made = Made(value)
    for _ in range(3):
        assert await cache.get_or_create("k", made, type=kind) is value
    assert made.calls == 3
    assert cache.stats().not_stored == {"inexact": 3}
    assert cache.stats().stored == 0
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1
    assert "Made" in told[0]
    assert "secret" not in told[0]


@pytest.mark.parametrize(
    ("value", "kind", "built"),
    [
        (1, float, 1.0),
        ([0, 0.5], list[float], [0.0, 0.5]),
        (collections.defaultdict(list, a=[1]), dict[str, list[int]], {"a": [1]}),
        (Colour.RED, str, "red"),
        (collections.defaultdict(list, a=[1]), dict[str, Any], {"a": [1]}),
        ([Colour.RED, 1], list[str | int], ["red", 1]),
        ({"a": Colour.RED}, dict[str, str] | None, {"a": "red"}),
        (Pair(1, 2), tuple[int, int], (1, 2)),
    ],
    ids=repr,
)
async def test_a_type_may_say_that_less_is_enough(cache, value, kind, built):
    """An int where a float is asked for becomes one, a class derived from dict a dict."""
    made = Made(value)
    for _ in range(2):
        found = await cache.get_or_create("k", made, type=kind)
        assert repr(found) == repr(built)
        assert type(found) is type(built)
    assert made.calls == 1


async def test_those_who_wait_for_an_inexact_value_have_their_own(cache):
    """It is made once for all who ask at once, and no two of them share it."""
    made = Made([Login(password=SecretStr("secret"))])
    values = await asyncio.gather(*(cache.get_or_create("k", made) for _ in range(3)))
    assert made.calls == 1
    assert [value[0].password.get_secret_value() for value in values] == ["secret"] * 3
    assert len({id(value[0]) for value in values}) == 3
    stats = cache.stats()
    assert (stats.misses, stats.joined) == (1, 2)


async def test_what_cannot_be_copied_is_one_callers_alone(cache):
    """Where a value can't be copied, each of those who ask at once makes their own."""
    made = []

    async def create():
        lock = threading.Lock()
        made.append(lock)
        await asyncio.sleep(0)
        return lock

    values = await asyncio.gather(*(cache.get_or_create("k", create) for _ in range(3)))
    assert len(made) == len({id(value) for value in values}) == 3
    stats = cache.stats()
    assert (stats.misses, stats.bypassed) == (1, 2)


async def test_inexact_value_outlives_who_asked_first():
    """Whoever is left when the first one has gone has the value."""
    scene = Scene()
    gate = scene.upstream.hold()
    async with scene.cache as cache:

        async def create():
            await scene.upstream()
            return Login(password=SecretStr("secret"))

        first = asyncio.create_task(cache.get_or_create("k", create))
        await gate.arrived()
        second = asyncio.create_task(cache.get_or_create("k", create))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        gate.release()
        assert (await second).password.get_secret_value() == "secret"


@pytest.mark.parametrize(
    "value",
    [
        Login(password=SecretStr("secret")),
        Hidden(shown=1, hidden=2),
        Holder(items=[Derived(a=1, b=2)]),
        Raw(data=b"\xff"),
        counted(1),
    ],
    ids=repr,
)
async def test_setting_a_model_that_would_come_back_otherwise_is_refused(cache, value):
    """A model that its data don't give back can't be set, wherever it stands in the value."""
    kind = type(value)
    for wrapped, of in ((value, kind), ({"a": [value]}, dict[str, list[kind]])):  # type: ignore[valid-type]
        with pytest.raises(TypeError, match=r"can't be cached|wouldn't come back"):
            await cache.set("k", wrapped, type=of)
    assert not await cache.contains("k")


@pytest.mark.parametrize(("value", "kind"), INEXACT)
async def test_what_is_made_and_what_is_set_keep_one_rule(cache, value, kind):
    """What `get_or_create` delivers without storing it, `set` refuses, and says what helps."""
    with pytest.raises(TypeError) as caught:
        await cache.set("k", value, type=kind)
    assert kind is not Any or "type=" in str(caught.value) or "can't be cached" in str(caught.value)
    with pytest.raises(TypeError):
        await cache.set_many({"other": 1, "k": value}, type=kind)
    assert not await cache.contains("k")
    assert not await cache.contains("other")


@pytest.mark.parametrize(("value", "kind"), EXACT, ids=repr)
async def test_what_was_set_as_a_type_comes_back_as_that(cache, value, kind):
    """`get` is told the same type."""
    assert await cache.set("k", value, type=kind)
    assert await cache.set_many({"a": value, "b": value}, type=kind) == [True, True]
    for found in (await cache.get("k", type=kind), *await cache.get_many(["a", "b"], type=kind)):
        assert type(found) is type(value)
        assert repr(found) == repr(value)


async def test_a_type_that_nothing_can_be_set_as_is_refused(cache):
    """It is said before anything is stored, as for `get_or_create`."""
    with pytest.raises(TypeError, match="can't be built as"):
        await cache.set("k", Point(1), type=Point | Deep)


async def test_a_model_that_was_set_comes_back(cache):
    """By the names of its fields, whatever aliases it has."""
    value = Aliased.model_validate({"READ": 1, "written": 2, "BOTH": 3})
    await cache.set("k", value, type=Aliased)
    assert await cache.get("k", type=Aliased) == value
    assert await cache.get("k") == {"read": 1, "written": 2, "both": 3}


BROKEN = {
    "too deep": b"\x91" * 100_000 + b"\xc0",
    "too deep to compare": b"\x91" * 500 + b"\xc0",
    "cut": b"\x92\x01",
    "no msgpack": b"\xc1",
    "no text": b"\xa1\xff",
    "empty": b"",
}


@pytest.fixture(params=BROKEN)
async def planted(request, cache):
    """Put bytes into a cache that can't be read, whoever wrote them, and return the cache."""
    data = BROKEN[request.param]
    await values_of(cache).put([("k", None)], lambda _, type: (VALUE_META, data))
    return cache


async def test_what_cannot_be_read_is_made_anew(planted):
    """A stored value that is nested too deeply, or cut, is as one of another type."""
    made = Made([1])
    for _ in range(2):
        assert await planted.get_or_create("k", made, type=list[int]) == [1]
    assert made.calls == 1
    assert planted.stats().flaws == {"mistyped": 1}
    assert await planted.get("k") == [1]


async def test_what_cannot_be_read_is_said(planted):
    """`get` and a replay raise what they raise for another type, and nothing else."""
    with suppress(msgspec.ValidationError):
        await planted.get("k")  # some of it is good as plain data
    with pytest.raises(msgspec.ValidationError):
        await planted.get("k", type=list[int])
    with pytest.raises(msgspec.ValidationError), options(mode="replay"):
        await planted.get_or_create("k", Made([1]), type=list[int])
    assert await planted.contains("k")


@pytest.mark.parametrize("store", ["memory", "disk"])
async def test_replay_finds_what_is_unusable_alone_and_among_many(store, tmp_path):
    """An answer that no caller could use is found by its replay alone, by each way to look."""

    def pack(value, type):
        meta, data = packed(value, type)
        return msgspec.structs.replace(meta, unusable=True), data

    cache = Cache.memory() if store == "memory" else Cache.disk(cache_path_root=tmp_path)
    async with cache:
        await values_of(cache).put([("k", "answer")], pack)
        assert await cache.get("k") is None
        assert await cache.get_many(["k", "other"]) == [None, None]
        with options(mode="replay"):
            assert await cache.get("k") == "answer"
            assert await cache.get_many(["k", "other"]) == ["answer", None]


class Picky:
    """Raises when it is built, as a model's own code may."""

    @classmethod
    def model_validate(cls, *args: object, **kwargs: object) -> Picky:
        """Raise."""
        raise RuntimeError("not today")


async def test_what_a_class_refuses_to_build_is_made_anew(cache):
    """Whatever its code raises: a value that can't be built is no reason to fail."""
    await cache.set("k", 1)
    made = Made(Picky())
    assert isinstance(await cache.get_or_create("k", made, type=Picky), Picky)
    assert made.calls == 1


@pytest.mark.parametrize("ttl", [10**400, 1e300, 10**12, dt.timedelta.max], ids=repr)
async def test_a_ttl_may_be_as_long_as_it_likes(cache, ttl):
    """What is longer than any cache lives is for ever, in whatever number it is said."""
    assert await cache.set("k", 1, ttl=ttl)
    assert await cache.get_or_create("made", Made(2), ttl=ttl) == 2
    with options(ttl=ttl):
        assert await cache.set("block", 3)
    assert await cache.get_many(["k", "made", "block"]) == [1, 2, 3]
    Cache.memory(ttl=ttl, store_timeout=10**400, lease_ttl=10**400)


# -- the type of what is made ------------------------------------------------------------------


async def make_point() -> Point:
    """Make one."""
    return Point(1)


async def make_points() -> dict[str, list[Point]]:
    """Make some."""
    return {"a": [Point(1)]}


async def make_unreadable(other: Unknown | None = None) -> Point:
    """Make one."""
    return Point(1)


async def test_values_are_built_as_what_makes_them_says(cache):
    """Without `type=`, the return annotation is the type, on the first call and later."""

    class Local(msgspec.Struct):
        x: int

    async def make_local() -> list[Local]:
        return [Local(1)]

    async def make_any() -> Any:
        return {"x": 1}

    for create, wanted in (
        (make_point, Point(1)),
        (make_points, {"a": [Point(1)]}),
        (make_unreadable, Point(1)),
        (make_local, [Local(1)]),
        (make_any, {"x": 1}),
    ):
        key = create.__name__
        assert [await cache.get_or_create(key, create) for _ in range(3)] == [wanted] * 3
    stats = cache.stats()
    assert (stats.misses, stats.hits, stats.not_stored) == (5, 10, {})


async def test_what_returns_an_awaitable_does_not_say_what_it_makes(cache):
    """A plain function's annotation is that of the awaitable, not of the value."""

    def create() -> asyncio.Task[int]:
        return asyncio.create_task(asyncio.sleep(0, 5))

    assert [await cache.get_or_create("k", create) for _ in range(2)] == [5, 5]
    assert cache.stats().hits == 1


def test_plain_functions_say_what_they_make_too():
    """The face for code that can't await builds values alike."""

    def create() -> Point:
        return Point(1)

    with Cache.memory() as cache:
        assert [cache.get_or_create("k", create) for _ in range(2)] == [Point(1)] * 2
        assert cache.stats().hits == 1
        assert cache.get_or_create("untyped", lambda: Point(1)) == Point(1)
        assert cache.stats().not_stored == {"inexact": 1}
        with pytest.raises(TypeError, match="come back"):
            cache.set("k", Login(password=SecretStr("secret")))


# -- wrong arguments ---------------------------------------------------------------------------


async def test_what_is_no_coroutine_function_is_said(cache):
    """A value, a coroutine and a plain function are told apart from a coroutine function."""
    with pytest.raises(TypeError, match=r"coroutine function.*not an int"):
        await cache.get_or_create("k", 3)
    with pytest.raises(TypeError, match="uncalled, not a coroutine"):
        await cache.get_or_create("k", make_point())
    with pytest.raises(TypeError, match=r"must be a coroutine function.*returned an int"):
        await cache.get_or_create("k", lambda: 3)
    with options(mode="off"), pytest.raises(TypeError, match="returned an int"):
        await cache.get_or_create("k", lambda: 3)


def test_what_is_no_plain_function_is_said():
    """A value and what returns a coroutine are told apart from a plain function."""
    with Cache.memory() as cache:
        with pytest.raises(TypeError, match=r"plain function.*not an int"):
            cache.get_or_create("k", 3)  # type: ignore[call-overload] # the point
        with pytest.raises(TypeError, match="AsyncCache"):
            _ = cache.get_or_create("k", functools.partial(make_point))


# -- values that ask for themselves ------------------------------------------------------------


async def test_what_asks_for_itself_goes_past_the_cache(cache):
    """A value that is part of what makes it is made by a call of its own, and nobody waits."""

    async def inner():
        return 1

    async def outer():
        return 1 + await cache.get_or_create("k", inner)

    async def in_a_task():
        return await asyncio.create_task(outer())

    assert await cache.get_or_create("k", outer) == 2
    with options(mode="refresh"):
        assert await cache.get_or_create("k", in_a_task) == 2
    assert await cache.get_or_create("k", outer) == 2
    stats = cache.stats()
    assert (stats.misses, stats.bypassed, stats.hits) == (2, 2, 1)


async def test_what_outlives_its_value_may_ask_for_it(cache):
    """A task that was started where a value was made is a caller like others afterwards."""
    tasks = []
    made = asyncio.Event()

    async def later():
        await made.wait()
        return await cache.get_or_create("k", make_point, type=int)

    async def create():
        tasks.append(asyncio.create_task(later()))
        return 1

    await cache.get_or_create("k", create)
    made.set()
    assert await tasks[0] == 1
    assert cache.stats().bypassed == 0


async def test_another_cache_may_hold_the_same_key(cache):
    """A cache in front of another asks it for the same key."""
    async with Cache.memory() as behind:
        made = Made(1)
        assert await cache.get_or_create("k", lambda: behind.get_or_create("k", made)) == 1
        assert await behind.get("k") == 1
        assert behind.stats().bypassed == cache.stats().bypassed == 0


def test_plain_functions_that_ask_for_themselves_go_past_the_cache():
    """Also in the thread of who asked."""
    with Cache.memory() as cache:
        assert cache.get_or_create("k", lambda: 1 + cache.get_or_create("k", lambda: 1)) == 2
        assert cache.get("k") == 2


# -- what is said of what a function makes --------------------------------------------------------


class Event(BaseModel):
    """It has a time."""

    at: dt.datetime


@dataclasses.dataclass
class Block:
    """A union that no bytes tell apart."""

    held: Point | Block


@dataclasses.dataclass
class Worked(Point):
    """What it works out of its fields, it keeps."""

    @functools.cached_property
    def twice(self):
        """Twice its number."""
        return self.x * 2


@pytest.mark.parametrize("zone", [dt.UTC, ZoneInfo("UTC"), dt.timezone(dt.timedelta(hours=2))])
async def test_a_models_time_may_know_its_offset_by_another_class(cache, zone):
    """Pydantic has classes of its own for offsets; the times are the same."""
    made = Made(Event(at=dt.datetime(2026, 1, 2, tzinfo=zone)))
    for _ in range(2):
        assert await cache.get_or_create("k", made, type=Event) == made.value
    assert made.calls == 1
    assert await cache.set("set", [made.value], type=list[Event])


async def test_what_a_dataclass_keeps_beside_its_fields_is_not_looked_at(cache):
    """A property that was asked for before keeps an object from nothing."""
    made = Made(Worked(1))
    assert made.value.twice == 2
    for _ in range(2):
        assert await cache.get_or_create("k", made, type=Worked) == Worked(1)
    assert made.calls == 1


def in_another_module(function):
    """Decorate a function as one of a module does where its annotation means something else."""
    names = {"function": function, "functools": functools, "Point": Deep}
    source = """
@functools.wraps(function)
async def wrapper(*args, **kwargs):
    return await function(*args, **kwargs)
"""
    exec(source, names)
    return names["wrapper"]


class Caller:
    """Called like a function."""

    async def __call__(self) -> Point:
        return Point(1)

    async def method(self) -> Point:
        """Make the same."""
        return Point(1)


async def point(x=0) -> Point:
    """Make a point."""
    return Point(x)


@pytest.mark.parametrize(
    "create",
    [functools.partial(point, 1), functools.partial(functools.partial(point), x=1), Caller(),
     Caller().method, functools.partial(in_another_module(point), 1)],
    ids=["partial", "twice", "object", "method", "decorated"],
)  # fmt: skip
async def test_what_calls_a_function_makes_what_that_one_says(cache, create):
    """Annotations are found through partials, objects and decorators, where they were written."""
    for _ in range(3):
        assert await cache.get_or_create("k", create) == Point(1)
    assert cache.stats().upstream_calls == 1


async def test_annotations_that_nothing_can_be_built_as_say_nothing(cache):
    """Whoever names no type has not asked for one: plain data is stored, the rest is delivered."""

    async def blocks() -> Block:
        return Block(Point(1))

    async def numbers() -> Iterable[int]:
        return [1]

    for _ in range(2):
        assert await cache.get_or_create("blocks", blocks) == Block(Point(1))
        assert await cache.get_or_create("numbers", numbers) == [1]
    assert cache.stats().not_stored == {"inexact": 2}
    assert cache.stats().hits == 1


@pytest.mark.parametrize("annotation", ["list[Point]", "'list[Point]'"])
async def test_a_class_that_is_made_anew_is_what_its_name_means(cache, annotation):
    """In a notebook a cell is run again, and its class is another one from then on."""
    names = {"dataclasses": dataclasses, "Point": Point}
    exec(f"async def make() -> {annotation}:\n    return [Point(1)]", names)
    assert type((await cache.get_or_create("k", names["make"]))[0]) is Point
    exec("@dataclasses.dataclass\nclass Point:\n    x: int", names)
    assert type((await cache.get_or_create("k", names["make"]))[0]) is names["Point"]
