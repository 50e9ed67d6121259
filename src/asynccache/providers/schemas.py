"""Checks JSON against a schema of a request, whoever wrote the schema.

A schema is a stranger's program: `pattern`, `$ref` and their like can keep a validator busy for
ever. So the work is done by jsonschema, whose keywords are Python functions, each of which is
counted here: `tick` can end it, and lets other threads run. Patterns go to a regex engine that
takes linear time. No `$ref` leads out of the schema.
"""

# Any JSON passes through here, so that pyright can't know what is in it.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

import msgspec

Tick = Callable[[], None]
"""Called every now and then. It raises `TimeoutError` when the time is up."""

_TICKS: Final = 32  # keywords, some 0.2 ms of work, between two ticks
_LONGEST_SCHEMA: Final = 128 * 1024  # bytes
_LONGEST_INSTANCE: Final = 128 * 1024  # bytes: errors show it, and that holds the interpreter
_LONGEST_PATTERN: Final = 256  # characters; with the two below, some milliseconds at worst
_MOST_REPETITIONS: Final = 500  # by all counts of a pattern together
_LONGEST_MATCHED: Final = 4000  # characters
_DEEPEST: Final = 100  # references within references: above, a schema refers to itself for ever
_COUNTS: Final = re.compile(r"(\)?)\{(\d*),?(\d*)\}")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_ASCII: Final = {
    "d": "[0-9]", "D": "[^0-9]", "w": "[A-Za-z0-9_]", "W": "[^A-Za-z0-9_]",
}  # fmt: skip
"""What these mean in JSON Schema; in Rust they hold all of Unicode, and take long to compile."""
_DIALECT: Final = "$schema"
_PATTERNS: Final = "patternProperties"
_REFERENCES: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})


class _Work:
    """What is being validated in this context."""

    __slots__ = ("depth", "steps", "tick")

    def __init__(self, tick: Tick) -> None:
        self.tick = tick
        self.steps = 0
        self.depth = 0


_work: Final[ContextVar[_Work]] = ContextVar("asynccache_schema_work")


class UnreadSchemaError(Exception):
    """The validator can't tell whether anything fits a schema."""


def fits(schema: bytes, text: str, tick: Tick) -> bool:
    """Tell whether JSON fits a schema. What is too large to tell does.

    Raises:
        UnreadSchemaError: The schema can't be read.
    """
    if len(text) > _LONGEST_INSTANCE:
        return True
    try:
        instance: Any = msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):  # numbers beyond all bounds
        return True
    token = _work.set(_Work(tick))
    try:
        known = _known(schema)
        if known.validator is None:
            raise UnreadSchemaError
        try:
            found: bool = known.validator.is_valid(instance)
        except Exception as exc:  # a reference that leads nowhere, the time, an odd schema
            known.validator = None  # it isn't tried twice
            raise UnreadSchemaError from exc
    finally:
        _work.reset(token)
    return found


class _Known:
    """What is known of a schema."""

    __slots__ = ("validator",)

    def __init__(self, validator: Any) -> None:
        self.validator = validator


@functools.lru_cache(maxsize=256)
def _known(schema: bytes) -> _Known:
    return _Known(_validator(schema))


def _validator(schema: bytes) -> Any:
    """Return the validator of a schema, None if it can't be read."""
    if len(schema) > _LONGEST_SCHEMA:
        return None
    try:
        dialects: Any = importlib.import_module("jsonschema.validators")
        members: Any = msgspec.json.decode(schema)
        if not isinstance(members, dict):
            return None
        dialect = members.pop(_DIALECT, None)
        if _names_dialect(members):  # a part that would be checked by another class than ours
            return None
        known = dialects.Draft202012Validator
        if dialect is not None:
            known = dialects.validator_for({_DIALECT: dialect}, default=None)
        if known is None:
            return None
        kind, registry = _bounded(known), _registry()
        meta = {name: value for name, value in known.META_SCHEMA.items() if name != _DIALECT}
        if not kind(meta, registry=registry).is_valid(members):
            return None
        return kind(members, registry=registry)
    except Exception:  # noqa: BLE001 - whatever a validator meets in an odd schema, or its absence
        return None


def _names_dialect(part: object) -> bool:
    pending: list[Any] = [part]
    for one in pending:
        if isinstance(one, dict):
            if _DIALECT in one:
                return True
            pending.extend(one.values())
        elif isinstance(one, list):
            pending.extend(one)
    return False


@functools.cache
def _registry() -> Any:
    """Return the dialects' own schemas, without their names.

    Named, they would be checked by the library's classes instead of ours. What isn't here can't be
    referred to: nothing is fetched.
    """
    known: Any = importlib.import_module("jsonschema_specifications").REGISTRY
    referencing: Any = importlib.import_module("referencing")
    dialects: Any = importlib.import_module("referencing.jsonschema")
    resources: list[Any] = []
    for uri in known:
        contents = dict(known.contents(uri))
        dialect = dialects.specification_with(contents.pop(_DIALECT))
        resources.append((uri, dialect.create_resource(contents)))
    return referencing.Registry().with_resources(resources).crawl()


@functools.cache
def _bounded(known: Any) -> Any:
    """Return a dialect's validator class whose every keyword is counted."""
    keywords: dict[str, Any] = {**known.VALIDATORS}
    keywords["additionalProperties"] = functools.partial(
        _additional_properties, keywords["additionalProperties"]
    )
    keywords |= {
        "pattern": _pattern,
        _PATTERNS: _pattern_properties,
        "uniqueItems": _unique_items,
        "unevaluatedItems": _unread,  # these match patterns by Python's engine
        "unevaluatedProperties": _unread,
    }
    counted = {name: _counted(keyword) for name, keyword in keywords.items()}
    for name in counted.keys() & _REFERENCES:
        counted[name] = _referring(counted[name])
    dialects: Any = importlib.import_module("jsonschema.validators")
    return dialects.extend(known, counted)


def _counted(keyword: Any) -> Any:
    def check(*args: Any) -> Any:
        work = _work.get()
        work.steps += 1
        if not work.steps % _TICKS:
            work.tick()
        return keyword(*args)

    return check


def _referring(keyword: Any) -> Any:
    def check(*args: Any) -> Any:
        work = _work.get()
        work.depth += 1
        try:
            if work.depth > _DEEPEST:
                raise UnreadSchemaError
            yield from keyword(*args) or ()
        finally:
            work.depth -= 1

    return check


def _unread(*_: Any) -> Any:
    raise UnreadSchemaError


def _pattern(_validator: Any, pattern: Any, instance: Any, _schema: Any) -> Any:
    if isinstance(instance, str) and not _is_in(pattern, instance):
        yield _failure("pattern")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, _schema: Any) -> Any:
    for pattern, schema in patterns.items() if isinstance(instance, dict) else ():
        for name, value in instance.items():
            if _is_in(pattern, name):
                yield from validator.descend(value, schema, path=name, schema_path=pattern)


def _additional_properties(
    keyword: Any, validator: Any, allowed: Any, instance: Any, schema: Any
) -> Any:
    patterns = schema.get(_PATTERNS)
    if not patterns or not isinstance(instance, dict):
        yield from keyword(validator, allowed, instance, schema)
        return
    known = schema.get("properties", {})
    rest = {
        name: value
        for name, value in instance.items()
        if name not in known and not any(_is_in(pattern, name) for pattern in patterns)
    }
    yield from keyword(validator, allowed, rest, {})


def _unique_items(_validator: Any, wanted: Any, instance: Any, _schema: Any) -> Any:
    if wanted and isinstance(instance, list):
        written = {msgspec.json.encode(item, order="deterministic") for item in instance}
        if len(written) < len(instance):
            yield _failure("uniqueItems")


def _failure(keyword: str) -> Exception:
    errors: Any = importlib.import_module("jsonschema.exceptions")
    made: Exception = errors.ValidationError(keyword)
    return made


def _is_in(pattern: str, text: str) -> bool:
    """Tell whether a pattern matches somewhere in a text."""
    if len(text) > _LONGEST_MATCHED:
        raise UnreadSchemaError
    found: bool = _engine(pattern).isinstance_python(text)
    return found


@functools.lru_cache(maxsize=256)
def _engine(pattern: str) -> Any:
    """Return what matches a pattern in linear time; the SDK brings it along with pydantic."""
    within = factor = 1
    for group, least, most in _COUNTS.findall(pattern):
        count = int(most or least or 1)
        within, factor = (within, factor * count) if group else (within + count, factor)
    if len(pattern) > _LONGEST_PATTERN or within * factor > _MOST_REPETITIONS or r"\p" in pattern:
        raise UnreadSchemaError
    core: Any = importlib.import_module("pydantic_core")
    ours = _ESCAPED.sub(lambda found: _ASCII.get(found[1], found[0]), pattern)
    return core.SchemaValidator(
        core.core_schema.str_schema(pattern=ours, regex_engine="rust-regex")
    )
