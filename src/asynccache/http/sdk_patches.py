"""The clients of SDKs that hide our errors, patched where they let them out."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from asynccache.cache.facade import Place
from asynccache.http.own_errors import MADE_BY_STAINLESS, letting_out


def places(name: str) -> Iterator[Place]:
    """Return what is patched; nothing of an SDK that another generator has made."""
    try:
        module = importlib.import_module(f"{name}._base_client")
    except ModuleNotFoundError:
        return
    for kind in sorted(MADE_BY_STAINLESS):
        yield Place(getattr(module, kind), "request", letting_out)
