"""Arguments of AutoGen's as plain data: what keys are made of, less credentials."""

# Clients and their arguments are other people's, so that pyright can't know what is in them.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final
from weakref import WeakKeyDictionary

from autogen_core import Image
from autogen_core.tools import Tool
from pydantic import BaseModel, PydanticUserError, SecretBytes, SecretStr

from asynccache.errors import NotCanonicalError
from asynccache.keys.denied import is_denied_query, kept_headers, without_credentials

_CREDENTIALS: Final = frozenset({
    "access_token", "api_key", "apikey", "auth_token", "authorization", "aws_access_key",
    "aws_secret_key", "aws_session_token", "azure_ad_token", "azure_ad_token_provider",
    "credential", "credentials", "password", "secret", "token",
})  # fmt: skip
"""Names of arguments that are never in a key. Of a `SecretStr` no name matters."""
ADDRESSES: Final = frozenset({"azure_endpoint", "base_url", "endpoint", "host"})
_HEADERS: Final = frozenset({"default_headers", "extra_headers", "headers"})
_NESTED: Final = frozenset({"bedrock_info"})  # holds arguments, as the whole does

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})

_schemas: Final[WeakKeyDictionary[type[BaseModel], Any]] = WeakKeyDictionary()


class Reading:
    """Turns arguments into plain data, and sets aside what doesn't belong into a key.

    Args:
        lenient: Leave out what has no plain form, instead of raising.
    """

    def __init__(self, *, lenient: bool = False) -> None:
        self.aside: list[str] = []
        self._lenient = lenient

    def arguments(self, found: Mapping[Any, Any], left_out: frozenset[str]) -> dict[str, Any]:
        """Return a client's arguments, less credentials and what is to be left out."""
        kept: dict[str, Any] = {}
        for name, value in found.items():
            if name in _CREDENTIALS or name in left_out:
                self.set_aside(value)
            elif name in _HEADERS and isinstance(value, Mapping):
                kept[name] = self.headers(value)
            elif name in _NESTED and isinstance(value, Mapping):
                kept[name] = self.arguments(value, left_out)
            elif name in ADDRESSES:
                kept[name] = without_credentials(str(value))[0]
            else:
                self._keep(kept, str(name), value)
        return kept

    def headers(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return headers, less credentials and what says nothing of a request."""
        self.set_aside(dict(found))
        kept: dict[str, Any] = self.plain(dict(kept_headers(found.items())))
        return kept

    def query(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return query parameters, less credentials."""
        self.set_aside(dict(found))
        kept: dict[str, Any] = {}
        for name, value in found.items():
            if not is_denied_query(name):
                self._keep(kept, name, value)
        return kept

    def set_aside(self, value: object) -> None:
        """Note what tells callers apart without being in the key. In memory only."""
        if isinstance(value, SecretStr | SecretBytes):
            value = value.get_secret_value()
        plain = isinstance(value, str | bytes | int | float | dict | None)
        self.aside.append(repr(value) if plain else f"{type(value)} {id(value)}")

    def plain(self, value: Any) -> Any:  # noqa: ANN401 - anything
        """Return any data as JSON would have it.

        Raises:
            NotCanonicalError: There is no such form.
        """
        if type(value) in _SCALARS:  # nearly all
            return value
        if isinstance(value, bool | int | float | str):
            return getattr(value, "value", value)  # an enum's
        if isinstance(value, Mapping):
            kept: dict[str, Any] = {}
            for name, inner in value.items():
                text = name if isinstance(name, str) else _named(name)
                if text in kept:
                    raise NotCanonicalError("a mapping names the same key twice")
                self._keep(kept, text, inner)
            return kept
        if isinstance(value, list | tuple):
            return [self.plain(item) for item in value]
        return self._object(value)

    def _object(self, value: Any) -> Any:  # noqa: ANN401 - as above
        if isinstance(value, type) and issubclass(value, BaseModel):
            return schema_of(value)
        if isinstance(value, BaseModel):
            return self.plain(dict(value))
        if isinstance(value, enum.Enum):
            return self.plain(value.value)
        if isinstance(value, Image):
            return _picture(value)
        if isinstance(value, Tool):
            return self.plain(value.schema)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: self.plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        kind = type(value)
        raise NotCanonicalError(
            f"{kind.__module__}.{kind.__qualname__} has no form to make keys of"
        )

    def _keep(self, kept: dict[str, Any], name: str, value: Any) -> None:  # noqa: ANN401 - as above
        if isinstance(value, SecretStr | SecretBytes):
            self.set_aside(value)
            return
        try:
            kept[name] = self.plain(value)
        except NotCanonicalError:
            if not self._lenient:
                raise
            self.set_aside(value)


def _named(name: object) -> str:
    """Return a key of a mapping as JSON has it."""
    try:
        return json.dumps(name)
    except TypeError as exc:
        kind = type(name).__qualname__
        raise NotCanonicalError(f"a mapping has a key of type {kind}, which JSON lacks") from exc


def schema_of(model: type[BaseModel]) -> Any:  # noqa: ANN401 - any JSON
    """Return what a model sees of a class that it is to answer as: its name and JSON schema.

    Raises:
        NotCanonicalError: It has no JSON schema.
    """
    found = _schemas.get(model)
    if found is None:
        try:
            found = {"class": model.__name__, "schema": model.model_json_schema()}
        except PydanticUserError as exc:
            raise NotCanonicalError(f"{model.__qualname__} has no JSON schema") from exc
        _schemas[model] = found
    return found


def _picture(image: Image) -> dict[str, str]:
    """Return what stands for an image: a digest of its pixels, which take no encoding."""
    picture = image.image
    seen = sha256(f"{picture.mode} {picture.size} ".encode())
    seen.update(picture.tobytes())
    return {"image": seen.hexdigest()}
