"""From a request's JSON body to the form that keys are made of."""

from __future__ import annotations

from typing import Any, Final

from asynccache.errors import NotCanonicalError
from asynccache.keys.canonical import canonical_json, without_paths
from asynccache.keys.denied import DENIED_MEMBERS
from asynccache.keys.normalizer import Normalization
from asynccache.providers.provider import Operation
from asynccache.providers.secrets import without_secrets

_DENIED_PATHS: Final = tuple((name,) for name in DENIED_MEMBERS)


def _may_hold_secrets(data: dict[str, Any], canonical: bytes, operation: Operation) -> bool:
    if operation.secretive.isdisjoint(data):
        return False
    for mark in operation.marks:
        if mark in canonical:
            return True
    return not operation.marks


def keyed_form(
    data: dict[str, Any],
    canonical: bytes,
    *,
    operation: Operation,
    ignore: tuple[tuple[str, ...], ...],
    normalize: Normalization | None,
) -> tuple[bytes, tuple[str, ...]]:
    """Return what of a body is in its key, and the secrets that are left out of it.

    Nearly every body is its own keyed form, which a glance tells.

    Args:
        data: The body as plain data.
        canonical: Its canonical form.
        operation: Of the request.
        ignore: Paths that are left out.
        normalize: What is applied to the rest; None for nothing.

    Raises:
        NotCanonicalError: The answer depends on state at the server, or a normalizer failed.
    """
    hiding = _may_hold_secrets(data, canonical, operation)
    if (
        not hiding
        and not ignore
        and normalize is None
        and DENIED_MEMBERS.isdisjoint(data)
        and operation.stateful.isdisjoint(data)
    ):
        return canonical, ()
    if any(data.get(name) for name in operation.stateful):
        raise NotCanonicalError("it reads or changes state at the server")
    secrets: list[str] = []
    kept = without_paths(data, (*_DENIED_PATHS, *ignore))
    if hiding:
        kept = without_secrets(kept, secrets)
    form = kept if normalize is None else normalize.form(canonical_json(kept))
    if "stream" in data:  # whatever was left out: a plain answer is none to a streamed request
        form = {**form, "stream": data["stream"]}
    return canonical_json(form), tuple(secrets)
