"""Tells whether an answer is of any use: JSON where its request demands JSON, and as demanded.

What can't be decided counts as usable. Not judged are refusals, empty content beside tool calls,
and custom tools. Where a protocol has its messages, and what a request of it demands, stands with
the protocol.
"""

# Any JSON passes through here, so that pyright can't know what is in it.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from asynccache.providers.facts import DONE, members
from asynccache.providers.frames import EventReader
from asynccache.providers.schemas import Tick, UnreadSchemaError, fits

_FENCES: Final = ("```", "~~~")
_LANGUAGE: Final = re.compile(r"\w*\s")
_RECORDS: Final = 64  # some 0.2 ms of decoding between two ticks
_WELL_FORMED: Final = msgspec.json.Decoder(Raw).decode


Verdict = tuple[bool, frozenset[bytes]]
"""Whether an answer is usable, and the schemas that the validator couldn't read."""


class Said(Struct):
    """One message of an answer, or what of several belongs together."""

    text: str | None = None
    """None where there is nothing to be judged."""
    calls: Sequence[tuple[str, str]] = ()
    """Names and arguments of calls of function tools."""


class Judge(Struct, frozen=True):
    """Judges the answers to one request, which it has read. It may run in any thread."""

    said: Callable[..., list[Said]]
    """Reads an answer's messages from its chunks."""
    demands: bool
    """The text has to be JSON."""
    schema: bytes | None = None
    """That it has to fit."""
    tools: Mapping[str, bytes] = {}
    """Schemas that the arguments of function tools have to fit, by their names."""
    called: bytes = b'"arguments"'
    """Is in an answer that calls function tools."""

    def work(self, chunks: Sequence[bytes], *, streamed: bool) -> Callable[[Tick], Verdict] | None:
        """Return what judges an answer; None where a glance shows that there is nothing to judge.

        Args:
            chunks: Its body: one JSON document, or a stream's events or lines.
            streamed: Which of the two.
        """
        if not self.demands and not any(self.called in chunk for chunk in chunks):
            return None
        return functools.partial(self._verdict, chunks, streamed=streamed)

    def _verdict(self, chunks: Sequence[bytes], tick: Tick, *, streamed: bool) -> Verdict:
        unread: set[bytes] = set()
        try:
            said = self.said(chunks, tick, streamed=streamed)
            usable = all(self._is_usable(one, unread, tick) for one in said)
        except Exception:  # noqa: BLE001 - out of time, or a body of any other form
            usable = True
        return usable, frozenset(unread)

    def _is_usable(self, said: Said, unread: set[bytes], tick: Tick) -> bool:
        judged = self.demands and said.text is not None
        if judged and not _fits(_unfenced(said.text or ""), self.schema, unread, tick):
            return False
        return all(
            _fits(arguments if arguments.strip() else "{}", self.tools.get(name), unread, tick)
            for name, arguments in said.calls
        )


def _fits(text: str, schema: bytes | None, unread: set[bytes], tick: Tick) -> bool:
    tick()
    if not _is_json(text):
        return False
    if schema is None:
        return True
    try:
        return fits(schema, text, tick)
    except UnreadSchemaError:
        unread.add(schema)
        return True


def _unfenced(text: str) -> str:
    """Return what stands in a Markdown fence, if a text is one."""
    text = text.strip()
    fence = text[:3]
    if fence not in _FENCES or not text.endswith(fence):
        return text
    inner = text.strip(fence[0])
    language = _LANGUAGE.match(inner)
    return inner if language is None or _is_json(inner) else inner[language.end() :]


def _is_json(text: str) -> bool:
    try:
        _WELL_FORMED(text)
    except (msgspec.MsgspecError, ValueError):  # it refuses lone surrogates, which JSON may hold
        try:
            json.loads(text, parse_constant=_refused)
        except ValueError:
            return False
    return True


def _refused(constant: str) -> None:
    raise ValueError(constant)


# -- what protocols read requests and answers with ---------------------------------------------


def schema_in(demand: object, name: str) -> bytes | None:
    """Return the schema that stands in a part of a request, None if there is none."""
    schema = members((members(demand) or {}).get(name))
    return msgspec.json.encode(schema) if schema else None


def strict_schema(demand: object, name: str) -> bytes | None:
    """Return a schema of which its request says that it has to be kept to."""
    strict = (members(demand) or {}).get("strict") is True
    return schema_in(demand, name) if strict else None


def strict_tools(tools: Sequence[object], name: str) -> dict[str, bytes]:
    """Return the schemas that arguments have to fit, by the names of their tools."""
    found: dict[str, bytes] = {}
    for tool in tools:
        if (schema := strict_schema(tool, name)) is not None:
            found[str((members(tool) or {}).get("name"))] = schema
    return found


def document(chunks: Sequence[bytes]) -> Any:
    """Return the data of a plain answer."""
    return msgspec.json.decode(b"".join(chunks))


def events(chunks: Sequence[bytes], tick: Tick) -> Iterator[dict[str, Any]]:
    """Return the objects that a stream's events carry."""
    reader = EventReader()
    for at, chunk in enumerate(chunks):
        if not at % _RECORDS:
            tick()
        for data in reader.read(chunk):
            if data.startswith(DONE):
                return
            if (event := members(msgspec.json.decode(data))) is not None:
                yield event


def lines(chunks: Sequence[bytes], tick: Tick) -> Iterator[dict[str, Any]]:
    """Return the objects that a stream's lines are."""
    for at, chunk in enumerate(chunks):
        if not at % _RECORDS:
            tick()
        if chunk.strip() and (line := members(msgspec.json.decode(chunk))) is not None:
            yield line
