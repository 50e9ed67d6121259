"""Results of LangGraph's nodes: those that come back as they were are stored, and no others."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import pathlib
import re
import uuid
import zoneinfo
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    ToolMessage,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Command, Send
from pydantic import BaseModel, Field, PrivateAttr

from asynccache import Cache
from asynccache.integrations.langgraph import LangGraphCache

KEY = (("a",), "1")
CALLING = AIMessage("", tool_calls=[{"name": "pay", "args": {"eur": 5}, "id": "1"}])
UTC = dt.UTC


class Draft(BaseModel):
    """Holds any message, and is dumped as if they were of the class that it names."""

    messages: list[BaseMessage]


class Base(BaseModel):
    """A field's class."""

    x: int


class Sub(Base):
    """What is in the field."""

    y: int


class Holder(BaseModel):
    """Has a field of the one class, in which an object of the other may be."""

    item: Base


class Hidden(BaseModel):
    """Has what dumps leave out."""

    shown: int = 0
    left_out: int = Field(default=0, exclude=True)
    _private: int = PrivateAttr(default=0)

    @classmethod
    def with_private(cls, number):
        """Return one whose private attribute isn't the default."""
        made = cls()
        made._private = number
        return made


class Full(BaseModel):
    """Has fields of many kinds, of which all comes back."""

    when: dt.datetime
    tags: set[str] = set()
    pair: tuple[int, int] = (1, 2)
    amounts: dict[str, decimal.Decimal] = {}
    above: Full | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    """A dataclass without a ``__dict__``."""

    x: int
    more: Any = None


@dataclasses.dataclass
class Point:
    """A dataclass with one."""

    x: int
    y: int

    @classmethod
    def backwards(cls):
        """Return one whose attributes were set in another order."""
        made = cls.__new__(cls)
        made.y, made.x = 2, 1
        return made


class Color(enum.Enum):
    """An enumeration."""

    RED = "red"


class Number(int):
    """A number of its own kind."""


class Names(dict):  # type: ignore[type-arg]
    """A dict of its own kind."""


ALLOWED = [Base, Sub, Draft, Holder, Hidden, Full, Slotted, Point, Color, Number, Names]
WHEN = dt.datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
WHOLE = [
    CALLING,
    AIMessage("x", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
    AIMessageChunk("a", id="1") + AIMessageChunk("b", id="1"),
    HumanMessage([{"type": "text", "text": "x"}], name="n", id="1"),
    ToolMessage("21", tool_call_id="1", artifact={"x": [1]}, status="error"),
    RemoveMessage(id="1"),
    Document("text", metadata={"source": 1}),
    Command(goto=[Send("n", {"messages": [HumanMessage("x")]})], update={"x": 1}),
    Full(when=WHEN, tags={"a", "b"}, amounts={"x": decimal.Decimal("1.50")}, above=Full(when=WHEN)),
    Draft(messages=[]), Holder(item=Base(x=1)), Hidden(shown=1), Slotted(1, [Slotted(2)]),
    Point(1, 2), Point.backwards(),
    Color.RED, {1: "a", "1": "b", None: 1.5, (1, 2): True}, {"a", 1, 2.5}, frozenset({1}),
    float("nan"), -0.0, 2**63, b"x", None, WHEN, WHEN.date(), WHEN.timetz(),
    dt.timedelta(1, 2, 3), decimal.Decimal("1.0"), uuid.uuid4(), re.compile("a", re.DOTALL),
    pathlib.Path("a"), zoneinfo.ZoneInfo("Europe/Berlin"),
]  # fmt: skip
LOST = [
    Draft(messages=[CALLING]), Holder(item=Sub(x=1, y=2)), Hidden(left_out=5),
    Hidden.with_private(7), Slotted(1, (1,)), (1, 2), {"a": [(1,)]}, Command(update={"a": (1,)}),
    collections.defaultdict(list, a=[1]), collections.Counter("aab"), collections.OrderedDict(a=1),
    collections.deque([1], maxlen=2), Names(a=1), Number(3), ValueError("x"), "\ud800", 2**64,
    np.arange(3), WHEN.astimezone(zoneinfo.ZoneInfo("Europe/Berlin")), 1j, object(),
    bytearray(b"x"), {Number(3)}, frozenset({Number(3)}),
]  # fmt: skip


@pytest.fixture
async def found():
    """Make LangGraph's of a cache in memory."""
    async with Cache.memory() as cache:
        yield LangGraphCache(cache, allowed=ALLOWED)


def alike(one, other):
    """Tell whether two values are of the same kind, and equal or, like nan, printed the same."""
    return type(one) is type(other) and (one == other or repr(one) == repr(other))


@pytest.mark.parametrize("padding", ["", "x" * 100_000], ids=["small", "large"])
@pytest.mark.parametrize("value", WHOLE, ids=lambda value: type(value).__name__)
async def test_whole_results_are_stored(found, value, padding):
    """A result that comes back as it was is stored; what node and state hold isn't shared."""
    await found.aset({KEY: (collections.deque([("answer", value), ("more", padding)]), 60)})
    [answer, more] = (await found.aget([KEY]))[KEY]
    assert answer[0] == "answer"
    assert more[1] == padding
    assert alike(answer[1], value)


@pytest.mark.parametrize("padding", ["", "x" * 100_000], ids=["small", "large"])
@pytest.mark.parametrize("value", LOST, ids=lambda value: type(value).__name__)
async def test_others_are_not(found, value, padding, caplog):
    """A result of which something would be lost is counted and not stored, by neither face."""
    pairs = {KEY: (collections.deque([("answer", value), ("more", padding)]), 60)}
    await found.aset(pairs)
    found.set(pairs)
    assert await found.aget([KEY]) == {}
    assert "doesn't come back from data as it was" in caplog.text


async def test_reason_names_what_is_lost(found, caplog):
    """What is logged says which class came back as which."""
    await found.aset({KEY: ({"a": (1, 2)}, None)})
    await found.aset({KEY: (Holder(item=Sub(x=1, y=2)), None)})
    assert "(tuple becomes list)" in caplog.text
    assert "(Sub becomes Base)" in caplog.text


async def test_another_serializer_decides_alone():
    """With ``serde=`` results are stored as it makes them."""
    async with Cache.memory() as cache:
        found = LangGraphCache(cache, serde=JsonPlusSerializer(allowed_msgpack_modules=None))
        await found.aset({KEY: ({"a": (1, 2)}, None)})
        assert await found.aget([KEY]) == {KEY: {"a": [1, 2]}}
