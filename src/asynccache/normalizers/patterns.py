"""Dates, UUIDs and other things in texts that differ in each run, found by their patterns.

Each is numbered by its first appearance in the body, so that texts in which they are equal or
different in other places stay different. Only what a model reads as text is looked at: names of
models, ids and addresses stay as they are.
"""

# Any JSON passes through here, so that pyright can't know what is in it.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from asynccache.keys.normalizer import Normalizer, normalizer

_TEXTS: Final = frozenset({
    "arguments", "content", "description", "input", "instructions", "output", "prompt", "system",
    "text",
})  # fmt: skip
"""Members of a body whose texts, and lists of texts, a model reads."""

_MONTH: Final = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?"
    r"|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
_WEEKDAY: Final = (
    r"(?:Mon(?:day)?|Tue(?:s(?:day)?)?|Wed(?:nesday)?|Thu(?:r(?:s(?:day)?)?)?|Fri(?:day)?"
    r"|Sat(?:urday)?|Sun(?:day)?)"
)
_YEAR, _DAY = r"(?:19|20)\d\d", r"(?:3[01]|[12]\d|0?[1-9])"
_NUMBER: Final = r"(?:1[0-2]|0?[1-9])"  # of a month
_ORDINAL: Final = rf"{_DAY}(?:st|nd|rd|th|\.)?"
_CLOCK: Final = r"(?:[01]?\d|2[0-4]):[0-5]\d"
_ZONE: Final = r"(?: ?(?:Z|UTC|GMT|[+-]\d\d:?\d\d))?"
_HALF: Final = r" ?[AaPp]\.?[Mm]\b\.?"
_TIME: Final = rf"{_CLOCK}(?::[0-6]\d(?:[.,]\d+)?)?(?:{_HALF})?{_ZONE}"
_DATE: Final = "|".join((
    rf"{_YEAR}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])",
    rf"{_YEAR}/{_NUMBER}/{_DAY}",
    rf"{_DAY}([./]){_NUMBER}\1{_YEAR}",
    rf"{_NUMBER}/{_DAY}/{_YEAR}",
    rf"{_MONTH} +{_ORDINAL}(?: {_TIME})?,? {_YEAR}",  # also as C's `ctime` has it
    rf"{_ORDINAL}(?: of )?[ /-]?{_MONTH},?[ /-]{_YEAR}",
))  # fmt: skip
_MOMENT: Final = (
    rf"(?:{_WEEKDAY},? )?(?:{_DATE})(?:(?:T|[ :]|,? at |, ){_TIME})?(?:,? (?:a )?\(?{_WEEKDAY}\)?)?"
)
_ALONE: Final = rf"{_CLOCK}(?::[0-6]\d(?:[.,]\d+)?(?:{_HALF})?{_ZONE}|{_HALF})"
_DATES: Final = re.compile(rf"(?<![\w./-])(?:{_MOMENT}|(?<!:){_ALONE})(?![\w/-]|[.:]\d)")
_HEX: Final = "[0-9a-fA-F]"
_UUIDS: Final = re.compile(
    rf"(?<![0-9A-Za-z])(?:{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}"
    # Without dashes only the random ones, or else each digest would be one.
    rf"|{_HEX}{{12}}4{_HEX}{{3}}[89abAB]{_HEX}{{15}})(?![0-9A-Za-z])"
)


def by_pattern(pattern: str | re.Pattern[str], *, name: str = "pattern") -> Normalizer:
    """Return a normalizer that numbers what a pattern finds in the texts of a request.

    The pattern is in keys beside the name, so that another pattern needs no version.

    Example::

        Cache.disk(normalize=normalizers.by_pattern(r"run-[0-9]+"))

    Args:
        pattern: A regular expression. It is searched on the event loop, in every text, at every
            call, so it should be a quick one.
        name: Tells it from others in keys.

    Raises:
        re.error: It is no regular expression.
        ValueError: It finds empty texts.
    """
    compiled = re.compile(pattern)
    if compiled.search(""):
        raise ValueError(f"the pattern {compiled.pattern!r} finds empty texts")
    return Normalizer(_numbering(compiled), name, f"{compiled.flags:x} {compiled.pattern}")


def _numbering(pattern: re.Pattern[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def numbered(body: dict[str, Any]) -> dict[str, Any]:
        numbers: dict[str, int] = {}
        found: dict[str, Any] = _walked(body, pattern, numbers)
        return found

    return numbered


def _walked(
    node: Any, pattern: re.Pattern[str], numbers: dict[str, int], *, read: bool = False
) -> Any:
    """Return a part of a body with numbers for what was found; ``read``: models read it as text."""
    if isinstance(node, dict):
        return {
            name: _walked(value, pattern, numbers, read=name in _TEXTS)
            for name, value in node.items()
        }
    if isinstance(node, list):
        return [_walked(item, pattern, numbers, read=read) for item in node]
    return _split(node, pattern, numbers) if read and isinstance(node, str) else node


def _split(text: str, pattern: re.Pattern[str], numbers: dict[str, int]) -> Any:
    """Return a text in pieces, with a list of one number for each match between them.

    No text that is sent looks like this. A text without a match stays a text.
    """
    pieces: list[Any] = []
    end = 0
    for match in pattern.finditer(text):
        if match[0]:
            number = numbers.setdefault(match[0], len(numbers))
            pieces += [text[end : match.start()], [number]]
            end = match.end()
    return [*pieces, text[end:]] if pieces else text


@normalizer(version=1, name="dates")
def dates(body: dict[str, Any]) -> dict[str, Any]:
    """Number the dates and times of day in the texts of a request.

    Found are ISO 8601 (``2026-11-30T19:36:28Z``), ``30.11.2026``, ``11/30/2026``, English months
    (``November 30, 2026``, ``Mon, 30 Nov 2026``) with or without a time and a weekday, and times
    alone that have seconds or AM and PM.
    """
    return _NUMBER_DATES(body)


@normalizer(version=1, name="uuids")
def uuids(body: dict[str, Any]) -> dict[str, Any]:
    """Number the UUIDs in the texts of a request; without dashes, only random ones (version 4)."""
    return _NUMBER_UUIDS(body)


_NUMBER_DATES: Final = _numbering(_DATES)
_NUMBER_UUIDS: Final = _numbering(_UUIDS)
