"""Fixtures of the SDKs' tests: where they are asked, and what keeps them from asking elsewhere."""

from __future__ import annotations

import pytest
import trustme

from asynccache.providers import table


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A file with one authority: reading all that the system has takes most of a client's time."""
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    path.write_bytes(trustme.CA().cert_pem.bytes())
    return path


@pytest.fixture
def offline(authority, monkeypatch):
    """Let no SDK look for more than an answer, and forget what was registered for it."""
    monkeypatch.setattr(table, "_table", table._table)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    for name in ("LITELLM_LOCAL_MODEL_COST_MAP", "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"):
        monkeypatch.setenv(name, "True")


@pytest.fixture
def provider(way, request, offline):
    """The server that a way leads to."""
    return request.getfixturevalue("official_api" if way == "official" else "api")
