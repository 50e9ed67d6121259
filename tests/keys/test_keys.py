"""Keys: everything that identifies a call is in them, and nothing else, on every machine alike."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import functools
import itertools
import json
import os
import pathlib
import struct
import subprocess
import sys
import threading
import traceback
import uuid
import zoneinfo
from array import array
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import pydantic
import pytest
from hypothesis import given, strategies as st

from asynccache import NotCanonicalError
from asynccache.keys.canonical import (
    canonical_json,
    canonical_value,
    json_of,
    without_paths,
)
from asynccache.keys.denied import DENIED_HEADERS, DENIED_PREFIXES, DENIED_QUERY
from asynccache.keys.key import (
    KEY_BYTES,
    Namespace,
    Prefix,
    request_key,
    value_key,
)
from asynccache.keys.paths import flat_paths, path_digests

GOLDEN = json.loads((Path(__file__).parent / "golden_keys.json").read_bytes())
HERE = Namespace.of(42)
NAN, INF = float("nan"), float("inf")


class Colour(enum.Enum):
    RED = "red"


class Tint(enum.Enum):
    RED = "red"


class Word(enum.StrEnum):
    RED = "red"


class Bits(enum.IntFlag):
    ONE = 1


class Point(msgspec.Struct):
    x: object
    y: object = 0


@dataclasses.dataclass
class Dot:
    x: object
    y: object = 0


class Base(pydantic.BaseModel):
    x: int = 0


class Derived(Base):
    y: int = 0


class Model(pydantic.BaseModel):
    base: Base
    hidden: int = pydantic.Field(default=0, exclude=True)
    extra: int = 0
    model_config = pydantic.ConfigDict(extra="allow")
    _private: int = pydantic.PrivateAttr(0)


def prefix(namespace=HERE, **parts):
    """Return a request's prefix, usual but for the named parts."""
    usual = {"method": "POST", "upstream": "https://api.openai.com/v1", "path": "/chat/completions"}
    return Prefix(namespace, **(usual | parts))


def key(body=None, *, namespace=HERE, sample=0, **parts):
    """Return a request's key, usual but for the named parts."""
    return request_key(prefix(namespace, **parts), {"a": 1} if body is None else body, sample)


def built(tagged):
    """Return the Python value that the golden file describes as type and content."""
    kind, content = tagged
    if kind == "dict":
        return {built(name): built(value) for name, value in content}
    if kind in CONTAINERS:
        return CONTAINERS[kind](map(built, content))
    return READERS[kind](content)


CONTAINERS: dict[str, Callable] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
READERS: dict[str, Callable] = {
    "none": lambda _: None,
    "bool": bool,
    "int": int,
    "float": float.fromhex,
    "complex": complex,
    "str": str,
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "datetime": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "time": dt.time.fromisoformat,
    "timedelta": lambda seconds: dt.timedelta(seconds=seconds),
    "decimal": Decimal,
    "uuid": uuid.UUID,
    "posix path": pathlib.PurePosixPath,
    "windows path": pathlib.PureWindowsPath,
}


@pytest.mark.parametrize("golden", GOLDEN["requests"], ids=lambda golden: golden["name"])
def test_request_keys_are_golden(golden):
    """A request has the key it has always had: whoever changes that throws all caches away."""
    namespace = Namespace.of(golden["cache_seed"], golden.get("tenant"))
    made = Prefix(namespace, **golden["parts"])
    assert request_key(made, golden["body"], golden.get("sample", 0)).hex() == golden["key"]


@pytest.mark.parametrize("golden", GOLDEN["values"], ids=lambda golden: golden["name"])
def test_value_keys_are_golden(golden):
    """A Python value has the key it has always had."""
    namespace = Namespace.of(golden["cache_seed"], golden.get("tenant"))
    found = value_key(namespace, golden["purpose"], built(golden["value"]))
    assert found.hex() == golden["key"]


def test_golden_keys_are_all_different():
    """No two golden cases share a key."""
    keys = [golden["key"] for golden in (*GOLDEN["requests"], *GOLDEN["values"])]
    assert len(set(keys)) == len(keys) > 30
    assert all(len(bytes.fromhex(text)) == KEY_BYTES for text in keys)


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_keys_do_not_depend_on_the_hash_seed(seed):
    """Another process, hashing strings in another way, makes the same keys."""
    script = """
from tests.keys.test_keys import HERE, key, value_key
names = [f"name {n}" for n in range(50)]
print(key(dict.fromkeys(names, 1), headers=dict.fromkeys(names, "1")).hex())
print(value_key(HERE, "value", [set(names), frozenset(names), dict.fromkeys(set(names))]).hex())
"""
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), str(root / "src")])
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": paths},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    names = [f"name {n}" for n in range(50)]
    assert run.stdout.split() == [
        key(dict.fromkeys(names, 1), headers=dict.fromkeys(names, "1")).hex(),
        value_key(
            HERE, "value", [set(names), frozenset(names), dict.fromkeys(set(names))]
        ).hex(),
    ]  # fmt: skip


# ---- requests: what differs on the wire ----------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"temperature": 0}, {}),
        ({"temperature": 0}, {"temperature": None}),
        ({"temperature": 0}, {"temperature": False}),
        ({"temperature": 1}, {"temperature": True}),
        ({"temperature": 1}, {"temperature": 1.0}),
        ({"temperature": 0.0}, {"temperature": -0.0}),
        ({"seed": 2**70}, {"seed": 2**70 + 1}),
        ({"seed": 2**53}, {"seed": 2**53 + 1}),
        ({"seed": 42}, {"seed": "42"}),
        ({"a": "bc"}, {"ab": "c"}),
        ({"a": {"b": 1}}, {"a": 1, "b": 1}),
        ({"a": []}, {"a": {}}),
        ({"a": [1, [2]]}, {"a": [1, 2]}),
        ({"a": ["x,y"]}, {"a": ["x", "y"]}),
        ({"a": 'x","b":"y'}, {"a": "x", "b": "y"}),
        ({"stop": ["a", "b"]}, {"stop": ["b", "a"]}),
        ({"a": "é"}, {"a": "e\u0301"}),
        ({"a": "x"}, {"a": "x "}),
        ({"a": "\x00"}, {"a": ""}),
        ({"messages": [{"content": "hi"}, {"content": "ho"}]}, {"messages": [{"content": "ho"}]}),
        ({"num_ctx": 1024}, {"num_ctx": 2048}),
        ({"model": "a"}, {"model": "b"}),
        ({}, []),
    ],
)
def test_bodies_that_differ_have_different_keys(one, other):
    """Whatever differs in the JSON that travels differs in the key."""
    assert key(one) != key(other)


def test_the_order_of_a_body_does_not_matter():
    """The order of names, at any depth, is nothing that a server could answer to."""
    one = {"a": 1, "b": {"c": [{"d": 1, "e": 2}], "f": 3}}
    other = {"b": {"f": 3, "c": [{"e": 2, "d": 1}]}, "a": 1}
    assert list(one) != list(other)
    assert key(one) == key(other)


def test_a_body_equals_its_wire_form():
    """A body made from arguments and one read from the wire, however it is spaced, are one."""
    body = {"b": [1, 2.5, "é\u2028\U0001f600", None, True], "a": {"\n": -0.0, "z": 2**70}}
    for wire in (json.dumps(body), json.dumps(body, indent=3, ensure_ascii=False)):
        assert key(json_of(wire.encode())) == key(body)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"method": "GET"}, {"method": "POST"}),
        ({"upstream": "https://a.example/v1"}, {"upstream": "https://b.example/v1"}),
        ({"upstream": "https://a.example"}, {"upstream": "http://a.example"}),
        ({"path": "/chat/completions"}, {"path": "/responses"}),
        ({"upstream": "https://a/x", "path": "/y"}, {"upstream": "https://a", "path": "/x/y"}),
        ({"method": "POSTx", "upstream": "y"}, {"method": "POST", "upstream": "xy"}),
        ({"query": {"api-version": "1"}}, {"query": {"api-version": "2"}}),
        ({"query": {"a": "b"}}, {"headers": {"a": "b"}}),
        ({"query": {"ab": "c"}}, {"query": {"a": "bc"}}),
        ({"query": {"a": "1", "b": "2"}}, {"query": {"a": "2", "b": "1"}}),
        ({"headers": {"openai-beta": "x"}}, {}),
        ({"headers": {"openai-beta": "x"}}, {"headers": {"openai-beta": "y"}}),
        ({"headers": {"x-a": "bc"}}, {"headers": {"x-ab": "c"}}),
        ({"headers": {"X-A": "1", "x-a": "2"}}, {"headers": {"x-a": "2"}}),
        ({"headers": {"X-A": "1", "x-a": "2"}}, {"headers": {"x-a": "2", "X-A": "1"}}),
        ({"headers": {"x-stainles": "1"}}, {}),
        ({"headers": {"my-authorization": "1"}}, {}),
    ],
)
def test_requests_that_differ_have_different_keys(one, other):
    """Method, upstream, path, query and headers are in the key, each in its own place."""
    assert key(**one) != key(**other)


def test_headers_and_query_have_no_order_and_names_no_case():
    """Neither the order of headers and parameters nor the case of a header's name is identity."""
    assert key(headers={"X-A": "1", "x-b": "2"}) == key(headers={"X-B": "2", "x-a": "1"})
    assert key(query={"a": "1", "b": "2"}) == key(query={"b": "2", "a": "1"})


@pytest.mark.parametrize(
    "name", sorted({*DENIED_HEADERS, *(start + "anything" for start in DENIED_PREFIXES)})
)
def test_denied_headers_are_never_in_a_key(name):
    """Credentials, traces and what says who asks don't separate answers, however they are spelt."""
    for spelt in (name, name.upper(), name.title()):
        assert key(headers={spelt: "sk-one"}) == key(headers={spelt: "sk-two"}) == key()


@pytest.mark.parametrize("name", sorted(DENIED_QUERY))
def test_denied_parameters_are_never_in_a_key(name):
    """Credentials in the query are left out, however they are spelt."""
    for spelt in (name, name.upper()):
        assert key(query={spelt: "sk-one"}) == key(query={spelt: "sk-two"}) == key()


def test_named_headers_can_be_ignored():
    """A header that is named to be ignored is left out, and no other."""
    ignored = frozenset({"x-run"})
    one = key(headers={"X-Run": "1", "x-a": "1"}, ignore_headers=ignored)
    assert one == key(headers={"X-Run": "2", "x-a": "1"}, ignore_headers=ignored)
    assert one != key(headers={"X-Run": "1", "x-a": "2"}, ignore_headers=ignored)


def test_samples_are_different_answers():
    """Each sample number has its own key, and 0 is the plain request."""
    keys = {key(sample=n) for n in range(300)}
    assert len(keys) == 300
    assert key(sample=0) == key()


# ---- namespaces ----------------------------------------------------------------------------------


def test_namespaces_separate():
    """Seed and tenant are in the key, each in its own place."""
    spaces = [
        Namespace.of(42), Namespace.of(43), Namespace.of(-42), Namespace.of("42a"),
        Namespace.of(42, "a"), Namespace.of(42, "b"), Namespace.of(4, "2a"), Namespace.of("a"),
        Namespace.of("a", "42"), Namespace.of(42, "a/b"), Namespace.of(42, "a%2Fb"),
    ]  # fmt: skip
    assert len({key(namespace=space) for space in spaces}) == len(spaces)
    assert len({value_key(space, "value", 1) for space in spaces}) == len(spaces)
    assert len({space.text for space in spaces}) == len(spaces)


def test_a_seed_is_the_same_as_number_and_as_text():
    """`cache_seed=42` and a "42" read from a URL or a file's name mean one cache."""
    assert Namespace.of("42") == Namespace.of(42)
    assert key(namespace=Namespace.of("42")) == key(namespace=Namespace.of(42))


@pytest.mark.parametrize("seed", ["", ".", "..", "-1", "a/b", "a\\b", "a:b", "a b", "ü", "x" * 65])
def test_a_seed_must_be_fit_for_a_file_name(seed):
    """What could leave its folder, or be read in two ways, is refused."""
    with pytest.raises(ValueError, match="cache_seed"):
        Namespace.of(seed)


@pytest.mark.parametrize("seed", [None, True, 1.5, b"42"])
def test_a_seed_is_a_number_or_text(seed):
    """Anything else is a mistake; None in particular does not switch the cache off."""
    with pytest.raises(TypeError, match="cache_seed"):
        Namespace.of(seed)


def test_long_tenants_are_names_too():
    """Stores keep a long one by its digest, which no other tenant's name can stand for."""
    tenants = ["x" * 200, "x" * 201, "é😀" * 5000, "a", "sha256:"]
    tenants += [str(Namespace.of(42, tenant).owner) for tenant in tenants]
    spaces = {Namespace.of(42, tenant) for tenant in tenants}
    assert len(spaces) == len(set(tenants)) == 8
    assert len({space.owner for space in spaces}) == len({space.text for space in spaces}) == 8
    assert len({value_key(space, "value", 1) for space in spaces}) == 8
    assert max(len(space.text) for space in spaces) <= 203


@pytest.mark.parametrize("tenant", ["", "a\ud800", "\udc80"])
def test_what_is_no_tenant(tenant):
    """An empty tenant is a forgotten one, and half a character no text."""
    with pytest.raises(ValueError, match="tenant"):
        Namespace.of(42, tenant)
    with pytest.raises(TypeError, match="tenant"):
        Namespace.of(42, 7)  # type: ignore[arg-type]


# ---- canonical JSON ------------------------------------------------------------------------------


def itself():
    """Return a body that holds itself."""
    body: dict[str, list] = {"a": []}
    body["a"].append(body)
    return body


def deep():
    """Return a body nested too deeply for any recursion."""
    body: list = []
    for _ in range(100_000):
        body = [body]
    return body


@pytest.mark.parametrize(
    "part",
    [
        NAN, INF, -INF, b"abc", bytearray(b"abc"), (1, 2), {1}, frozenset(), Decimal(1), 1j,
        dt.date(2024, 1, 1), dt.datetime(2024, 1, 1), uuid.UUID(int=1), Word.RED, Colour.RED,  # noqa: DTZ001
        Bits.ONE, Point(1), Dot(1), Base(), {50256: -100}, {None: 1}, {True: 1}, {b"a": 1},
        {("a",): 1}, "\ud800", {"\ud800": 1}, object(), Path(), itself(), deep(), ...,
    ],
    ids=lambda part: type(part).__name__,
)  # fmt: skip
@pytest.mark.parametrize("place", ["alone", "in a list", "in a long list", "in an object"])
def test_what_is_not_plain_json_is_refused(part, place):
    """NaN, bytes, tuples, enums and whatever else encoders write as something else is refused."""
    body = {
        "alone": part,
        "in a list": [1, part],
        "in a long list": [*range(100), part, *range(100)],
        "in an object": {"a": {"b": part}},
    }[place]
    with pytest.raises(NotCanonicalError):
        canonical_json(body)


def test_subclasses_of_plain_types_are_refused():
    """A subclass may be written otherwise on the wire, so it isn't taken for its base."""
    for base, value in ((str, "a"), (int, 1), (float, 1.0), (dict, {}), (list, [])):
        with pytest.raises(NotCanonicalError):
            canonical_json([type("Sub", (base,), {})(value)])


@pytest.mark.parametrize(
    "wire",
    [b"", b"{", b"nul", b"\xff", b'{"a":1,"a":2}', b'{"x":{"a":1,"b":2,"a":1}}', b"[" * 100_000,
     b"1" * 5000],
    ids=lambda wire: repr(wire[:12]),
)  # fmt: skip
def test_wire_json_that_is_not_one_thing_is_refused(wire):
    """Broken JSON, doubled names and depths no parser takes have no canonical form."""
    with pytest.raises(NotCanonicalError):
        json_of(wire)


@pytest.mark.parametrize("wire", [b"NaN", b"[Infinity]", b'{"a":-Infinity}', b"[1e999]"])
def test_wire_numbers_beyond_json_are_refused(wire):
    """What Python's parser takes beyond JSON ends at the canonical form."""
    with pytest.raises(NotCanonicalError):
        canonical_json(json_of(wire))


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | TEXTS,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=30,
)


def exact(value):
    """Return what a value is, such that equality tells types, order of lists and -0.0 apart."""
    kind = type(value)
    if kind is dict:
        return kind, frozenset((exact(name), exact(part)) for name, part in value.items())
    if kind in {list, tuple}:
        return kind, tuple(map(exact, value))
    if kind in {set, frozenset}:
        return kind, frozenset(map(exact, value))
    if kind is complex:
        return kind, repr(value)
    return kind, repr(value) if kind is float else value


@given(JSON)
def test_canonical_json_loses_nothing(body):
    """Read back, canonical JSON is the body it was made from: so no two bodies share one form."""
    assert exact(json.loads(canonical_json(body))) == exact(body)


@given(JSON)
def test_canonical_json_is_a_fixed_point(body):
    """The canonical form of a canonical form is itself, whatever wire form it came by."""
    text = canonical_json(body)
    assert canonical_json(json_of(text)) == text
    assert canonical_json(json_of(json.dumps(body, indent=1).encode())) == text


# ---- canonical values ----------------------------------------------------------------------------

MOMENT = dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)
BERLIN, PARIS = zoneinfo.ZoneInfo("Europe/Berlin"), zoneinfo.ZoneInfo("Europe/Paris")

DIFFERENT: list[object] = [
    None, NAN, INF, -INF, "null", "None", "", b"", bytearray(), (), [], {}, set(), frozenset(),
    0, False, 0.0, -0.0, 0j, complex(0.0, -0.0), complex(-0.0, 0.0), "0", b"0", Decimal(0),
    Decimal("-0"), Decimal("0.0"), Decimal("NaN"),
    1, True, 1.0, 1 + 0j, "1", b"1", Decimal(1), Decimal("1.0"), [1], (1,), {1}, frozenset({1}),
    -1, 2**70, 2**70 + 1, -(2**70), 10**5000, 10**5000 + 1,
    b"abc", "abc", "YWJj", bytearray(b"abc"), ["abc"], ["a", "bc"], ["ab", "c"], [["abc"]],
    ["a", ["b"]], [["a"], "b"], [["a", "b"]], ["a", "b"], ["b", "a"], ("a", "b"), [[], []], [[[]]],
    {"a": 1}, {"a": 1.0}, {"a": True}, {"a": None}, {1: "a"}, {1.0: "a"}, {True: "a"}, {"1": "a"},
    {"a": {"b": 1}}, {"a": 1, "b": 1}, [("a", 1)], [["a", 1]], {("a", 1)}, {("a", 1): None},
    {b"a": 1}, {"a:1": ""}, "S1:a", "é", "e\u0301", "\ud800", "\udc00", "\x00", "\x00\x00",
    dt.date(2024, 1, 1), "2024-01-01", dt.datetime(2024, 1, 1), dt.time(), dt.time(fold=1),  # noqa: DTZ001
    dt.time(tzinfo=dt.UTC), dt.time(tzinfo=BERLIN), dt.timedelta(0), dt.timedelta(1),
    dt.timedelta(seconds=1), dt.timedelta(microseconds=1), MOMENT, MOMENT.isoformat(),
    MOMENT.replace(tzinfo=None), MOMENT.astimezone(BERLIN), MOMENT.astimezone(PARIS),
    MOMENT.astimezone(dt.timezone(dt.timedelta(hours=1))), MOMENT.replace(fold=1),
    MOMENT.timestamp(), uuid.UUID(int=1), str(uuid.UUID(int=1)), uuid.UUID(int=1).bytes,
    Colour.RED, Tint.RED, Word.RED, "red", "RED", Bits.ONE, Bits(0), Bits(2), Bits(3), Bits(4),
    pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("a"), pathlib.PurePosixPath("a/b"),
    Point(1), Point(1.0), Point("1"), Dot(1), Dot(1, 1), {"x": 1, "y": 0}, Point(Point(1)),
    Base(), Derived(), Derived(y=1), Model(base=Base()), Model(base=Derived()),
    Model(base=Derived(y=1)), Model(base=Base(), hidden=1), Model(base=Base(), extra=1),
    Model(base=Base(), more=1),  # type: ignore[call-arg]  # extra="allow"
]  # fmt: skip


def test_values_that_differ_have_different_forms():
    """Every pair that JSON, equality or concatenation would merge stays two things."""
    forms = [canonical_value(value) for value in DIFFERENT]
    for (one, a), (other, b) in itertools.combinations(zip(DIFFERENT, forms, strict=True), 2):
        assert a != b, f"{one!r} and {other!r}"


def test_private_attributes_of_models_count():
    """A pydantic model's private attributes, by which models are compared, are in its form."""
    one, other = Model(base=Base()), Model(base=Base())
    other._private = 1
    assert canonical_value(one) != canonical_value(other)
    other._private = 0
    assert canonical_value(one) == canonical_value(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({3, 1, 2}, {2, 3, 1}),
        (Point(x={"a": 1, "b": 2}), Point(x={"b": 2, "a": 1})),
        (Base(x=1), Base.model_validate_json('{"x":1}')),
        (float("nan"), -float("nan")),
        (MOMENT, dt.datetime.fromisoformat("2024-01-01T12:00:00Z")),
    ],
)
def test_values_that_are_one_have_one_form(one, other):
    """Order of dicts and sets, and how an equal object was made, are no identity."""
    assert canonical_value(one) == canonical_value(other)


def named(members, kind=enum.Enum):
    """Return the first member of an enum, called as every other one."""
    return next(iter(kind("Model", members, module="script", qualname="Model")))


class Folder(type(pathlib.PurePosixPath())):  # type: ignore[misc]  # a class of each platform's
    pass


class Slotted:
    __slots__ = ("beside",)


@dataclasses.dataclass
class Beside(Slotted):
    x: int = 0


def having(value, **attributes):
    """Return an object with attributes set."""
    for name, attribute in attributes.items():
        setattr(value, name, attribute)
    return value


def lacking(value, *names):
    """Return an object without attributes."""
    for name in names:
        delattr(value, name)
    return value


def priced(price):
    """Return the member of a script's enum, which says what it costs."""
    return having(named({"FAST": "fast"}), price=price)


FLAG, BITS = enum.Flag, enum.IntFlag


class Settings:
    """Has no form of its own."""

    def __init__(self, model):
        self.model = model


class SubText(str):
    __slots__ = ()


class Price(NamedTuple):
    dollars: int


def sentence(text):
    """Return a member that is a text of a derived class, too."""
    return enum.Enum("Model", {"FAST": text}, type=SubText, module="script", qualname="Model").FAST  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (named({"FAST": "gpt-4o"}), named({"FAST": "gpt-5"})),
        (named({"FAST": 1}), named({"SLOW": 1})),
        (named({"FAST": 1}), named({"FAST": True})),
        (named({"FAST": 1}), named({"FAST": 1.0})),
        (named({"FAST": ("a", 1)}), named({"FAST": ("a", 2)})),
        (named({"FAST": {"n": 1}}), named({"FAST": {"n": 2}})),
        (named({"FAST": Dot(1)}), named({"FAST": Dot(2)})),
        (named({"FAST": "1"}, enum.StrEnum), named({"FAST": "2"}, enum.StrEnum)),
        (named({"READ": 1}, FLAG), named({"WRITE": 1}, FLAG)),
        (named({"READ": 1}, FLAG), named({"READ": 2}, FLAG)),
        (~named({"A": 1, "B": 2, "C": 4}, FLAG), ~named({"A": 1, "C": 2, "B": 4}, FLAG)),
        (named({"READ": 1}, BITS), named({"WRITE": 1}, BITS)),
        (priced(1), priced(2)),
        (priced((1, {"a": 2})), priced((1, {"a": 3}))),
        (named({"A": object}), priced(1)),
        (named({"FAST": Price(1)}), named({"FAST": Price(2)})),
        (named({"FAST": Price(1)}), named({"FAST": (1,)})),
        (named({"FAST": SubText("gpt-4o")}), named({"FAST": SubText("gpt-5")})),
        (sentence("gpt-4o"), sentence("gpt-5")),
        (named({"FAST": Fraction(1, 2)}), named({"FAST": Fraction(1, 3)})),
        (named({"FAST": OrderedDict(n=1)}), named({"FAST": OrderedDict(n=2)})),
        (named({"FAST": [partial(int, base=2)]}), named({"FAST": [partial(int, base=3)]})),
        (named({"FAST": {"f": [print], "n": 1}}), named({"FAST": {"f": [print], "n": 2}})),
        (named({"FAST": len}), named({"FAST": print})),
        (named({"FAST": [int]}), named({"FAST": [str]})),
        (named({"FAST": Settings("gpt-4o")}), named({"FAST": Settings("gpt-5")})),
        (having(named({"FAST": 1}), more=Price(1)), having(named({"FAST": 1}), more=Price(2))),
        (having(Beside(), beside=1), having(Beside(), beside=2)),
        (having(Beside(), beside=1), Beside()),
        (lacking(Beside(), "x"), Beside(x=None)),  # type: ignore[arg-type]
        (having(Folder("a"), options=1), having(Folder("a"), options=2)),
        (Folder("a"), pathlib.PurePosixPath("a")),
        (dt.time(tzinfo=dt.timezone(dt.timedelta(hours=1), "CET")),
         dt.time(tzinfo=dt.timezone(dt.timedelta(hours=1)))),
        (complex(NAN, 1), complex(1, NAN)),
        # The same bytes, if a NaN took fewer of them than other floats.
        (complex(NAN, struct.unpack(">d", b"abcd,nan")[0]),
         complex(struct.unpack(">d", b"nan,abcd")[0], NAN)),
    ],
)  # fmt: skip
def test_what_a_name_alone_would_merge_is_told_apart(one, other):
    """Of enums, flags, zones and objects all counts that isn't worked out of the rest."""
    assert canonical_value(one) != canonical_value(other)
    assert canonical_value([{"a": one}]) != canonical_value([{"a": other}])


def test_a_value_without_a_form_leaves_a_member_its_name():
    """A member whose value is an object is known by its name, and the same in each process."""
    held = Settings("gpt-4o")
    held.of = held  # type: ignore[attr-defined]  # its form would have no end
    for make in (object, threading.Lock, lambda: held, lambda: [{}, lambda: 0], lambda: (1, held)):
        one, again, other = (named({name: make()}) for name in ("FAST", "FAST", "SLOW"))
        assert canonical_value(one) == canonical_value(again)
        assert canonical_value(one) != canonical_value(other)


class cached_property:  # noqa: N801 - as libraries call theirs
    """A cached property that can be set, as some libraries' can."""

    def __init__(self, made):
        self.made = made

    def __get__(self, of, owner):
        return of.__dict__.setdefault(self.made.__name__, self.made(of))

    def __set__(self, of, value):
        of.__dict__[self.made.__name__] = value


class Working:
    """Works things out once, some of which have no form."""

    @functools.cached_property
    def total(self):
        """Return a number."""
        return 7

    @functools.cached_property
    def lock(self):
        """Return what has no form."""
        return threading.Lock()

    @cached_property
    def other(self):
        """Return what another library's property keeps."""
        return object()


@dataclasses.dataclass
class WorkingDot(Working):
    x: int = 0


class WorkingPoint(msgspec.Struct, Working, dict=True):
    x: int = 0


class WorkingModel(pydantic.BaseModel):
    x: int = 0

    @functools.cached_property
    def lock(self):
        """Return what has no form."""
        return threading.Lock()

    @pydantic.computed_field  # type: ignore[prop-decorator]  # mypy knows none on top of another
    @functools.cached_property
    def total(self) -> int:
        """Return a number that is also dumped."""
        return 7


class FrozenModel(WorkingModel, frozen=True):  # type: ignore[misc]  # pydantic allows it
    pass


class WorkingEnum(Working, enum.Enum):
    ONE = 1


class WorkingFolder(Working, Folder):
    pass


class WorkingValue(enum.Enum):
    HELD = Working()

    @property
    def total(self):
        """Work out what is held by the value."""
        return self.value.total


@pytest.mark.parametrize(
    "value",
    [WorkingDot(), WorkingPoint(), WorkingModel(), FrozenModel(), WorkingEnum.ONE,
     WorkingFolder("a"), WorkingValue.HELD],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_was_worked_out_of_an_object_is_not_in_its_form(value):
    """A cached property that was read changes no key, whatever it holds and whoever made it."""
    before = canonical_value(value)
    names = [name for name in ("total", "lock", "other") if hasattr(type(value), name)]
    assert all(getattr(value, name) for name in names)
    assert canonical_value(value) == before
    if not isinstance(value, enum.Enum | FrozenModel | WorkingModel):
        value.more = 1
        assert canonical_value(value) != before


class SubDict(dict):
    pass


class Day(dt.date):
    pass


class Nameless(dt.tzinfo):
    def utcoffset(self, when):
        return dt.timedelta(0)

    dst = utcoffset

    def tzname(self, when):
        return "nameless"


class Keyed(Nameless):
    key = "Europe/Berlin"


@dataclasses.dataclass
class Listed(list):
    x: int = 0


@dataclasses.dataclass
class FailedError(Exception):
    x: int = 0


class Pair(NamedTuple):
    x: int = 0


def unnamed_zone():
    """Return a time zone that was read of a file, and called as another."""
    paths = (Path(folder, "Europe", "Paris") for folder in zoneinfo.TZPATH)
    path = next(path for path in paths if path.exists())
    with path.open("rb") as file:
        return zoneinfo.ZoneInfo.from_file(file, "Europe/Berlin")


def cyclic():
    """Return a list that holds itself."""
    items: list = []
    items.append(items)
    return items


@pytest.mark.parametrize(
    "value",
    [
        object(), lambda: None, type, int, ..., iter(()), range(3), memoryview(b"a"), cyclic(),
        deep(), [object()], {"a": object()}, {object(): 1}, Point(object()), Dot(object()),
        Model(base=Base(), more=object()),  # type: ignore[call-arg]  # extra="allow"
        SubText("a"), SubDict(), Day(1, 1, 1), Listed(), FailedError(1), Pair(1),
        functools.partial(int, "1"), OrderedDict(), Fraction(1, 2), array("i", [1]), slice(1),
        dt.datetime(2024, 1, 1, tzinfo=Nameless()), dt.time(tzinfo=Keyed()),
        dt.time(tzinfo=unnamed_zone()),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_values_without_a_form_are_refused(value):
    """What has no contents to tell it by, or another type's meaning, has no canonical form."""
    with pytest.raises(NotCanonicalError):
        canonical_value(value)


def test_purposes_separate():
    """A value that was set and a call that was remembered never meet, nor does a request."""
    keys = {value_key(HERE, purpose, {"a": 1}) for purpose in ("value", "memoize", "request")}
    assert len(keys | {key()}) == 4


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from([0.0, -0.0, 1.0, 2.0])
    | st.text("01ab:(", max_size=3)
    | st.binary(max_size=2)
    | st.complex_numbers(max_magnitude=1, allow_subnormal=False)
)
HASHABLE = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
VALUES = st.recursive(
    HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.sets(HASHABLE, max_size=3)
        | st.dictionaries(HASHABLE, inner, max_size=3)
    ),
    max_leaves=6,
)


@given(VALUES, VALUES)
def test_canonical_values_are_injective(one, other):
    """Two values share a form exactly if they are the same in type and content throughout."""
    assert (canonical_value(one) == canonical_value(other)) == (exact(one) == exact(other))


@given(st.lists(VALUES, max_size=4), st.lists(VALUES, max_size=4))
def test_forms_can_not_run_into_each_other(one, other):
    """However contents are cut into parts, the parts stay apart."""
    joined = b"".join(map(canonical_value, one)), b"".join(map(canonical_value, other))
    assert (joined[0] == joined[1]) == (exact(one) == exact(other))


# ---- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "left"),
    [
        ([], {"user": "u", "messages": [{"id": 1, "c": "x"}, {"id": 2, "c": "y"}]}),
        ([("user",)], {"messages": [{"id": 1, "c": "x"}, {"id": 2, "c": "y"}]}),
        ([("messages", "*", "id")], {"user": "u", "messages": [{"c": "x"}, {"c": "y"}]}),
        ([("messages", "1", "id")], {"user": "u", "messages": [{"id": 1, "c": "x"}, {"c": "y"}]}),
        ([("messages", "0")], {"user": "u", "messages": [{"id": 2, "c": "y"}]}),
        ([("messages", "*")], {"user": "u", "messages": []}),
        ([("*",)], {}),
        ([("user",), ("messages",)], {}),
        ([("none",), ("user", "x"), ("messages", "7"), ("messages", "id"), ("*", "none")],
         {"user": "u", "messages": [{"id": 1, "c": "x"}, {"id": 2, "c": "y"}]}),
    ],
)  # fmt: skip
def test_paths_are_left_out(paths, left):
    """Exactly what is named is left out, and the caller's own body stays as it is."""
    body = {"user": "u", "messages": [{"id": 1, "c": "x"}, {"id": 2, "c": "y"}]}
    before = json.dumps(body)
    assert without_paths(body, paths) == left
    assert json.dumps(body) == before


def test_ignored_paths_do_not_change_the_key():
    """A generated message id that is ignored doesn't, and everything else does."""
    paths = [("messages", "*", "id")]
    one, two, three = (
        key(without_paths({"messages": [{"id": n, "content": text}]}, paths))
        for n, text in ((1, "a"), (2, "a"), (1, "b"))
    )
    assert one == two != three


def test_path_digests_tell_what_changed():
    """Of two bodies exactly the paths that differ have other digests; none tells the content."""
    body = {"model": "m", "messages": [{"role": "user", "content": [{"text": "secret"}]}], "n": 1}
    changed = json.loads(json.dumps(body).replace("secret", "other"))
    one, other = (flat_paths(path_digests(canonical_json(each))) for each in (body, changed))
    assert set(one) == {"model", "messages.0.role", "messages.0.content", "n"}
    assert {path for path in one if one[path] != other[path]} == {"messages.0.content"}
    assert all(digest < 2**32 for digest in one.values())


def test_long_lists_have_one_digest():
    """Tokens and embeddings are summed up; empty parts and bare values have a digest too."""
    found = flat_paths(
        path_digests(canonical_json({"input": list(range(10_000)), "a": {}, "b": []}))
    )
    assert set(found) == {"input", "a", "b"}
    assert found["a"] != found["b"]
    assert set(flat_paths(path_digests(b"1"))) == {""}


# ---- secrets -------------------------------------------------------------------------------------

SECRET = "sk-proj-verysecret"


class Holder:
    def __init__(self) -> None:
        self.secret = SECRET

    def __repr__(self) -> str:
        return self.secret


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (canonical_json, {"authorization": SECRET, "x": Holder()}),
        (canonical_json, {"authorization": SECRET + "\ud800"}),
        (canonical_json, {SECRET + "\ud800": 1}),
        (canonical_json, {SECRET: NAN}),
        (canonical_json, {"x": SECRET.encode()}),
        (canonical_json, {SECRET.encode(): 1}),
        (canonical_json, [(SECRET,)]),
        (json_of, f'{{"{SECRET}": '.encode()),
        (json_of, f'{{"{SECRET}": 1, "{SECRET}": 2}}'.encode()),
        (canonical_value, Holder()),
        (canonical_value, {"a": [SECRET, Holder()]}),
        (canonical_value, {Holder(): SECRET}),
        (canonical_value, Point(x=Holder(), y=SECRET)),
        (canonical_value, type("Text", (str,), {})(SECRET)),
    ],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_errors_name_no_values(make, value):
    """An error that may be logged, with its causes, tells types and never contents."""
    with pytest.raises(NotCanonicalError) as caught:
        make(value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in repr(caught.value)
