"""The providers' official host names, answered by a server of the tests' own.

SDKs and frameworks behave differently there than at any other address, so a `base_url` of the
tests won't do: nothing is told to the client. Beneath all HTTP libraries the names are resolved to
a server on this machine, whose certificate comes from an authority made for the run. Every other
name but this machine's can't be resolved: telemetry goes nowhere.
"""

from __future__ import annotations

import functools
import socket
import ssl
import tempfile
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import trustme

from tests.helpers.openai_server import running

OFFICIAL = (
    "api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com", "api.groq.com",
    "api.together.ai", "api-inference.together.ai", "api.cerebras.ai", "api.mistral.ai",
    "us-east5-aiplatform.googleapis.com", "api.cohere.com", "ollama.com", "router.huggingface.co",
)  # fmt: skip
_PLACE = ("127.0.0.2", 443)  # where the names seem to lie: only root may listen at 443
_HERE = {"127.0.0.1", "localhost", "::1", ""}
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@contextmanager
def official_server():
    """Run a server that answers at the official names, until the block is left."""
    authority = trustme.CA()
    certificate = authority.issue_cert(*OFFICIAL)
    with tempfile.TemporaryDirectory() as folder:
        chain, key = Path(folder) / "chain.pem", Path(folder) / "key.pem"
        key.write_bytes(certificate.private_key_pem.bytes())
        chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        with running(ssl_certfile=str(chain), ssl_keyfile=str(key)) as server:
            server.authority = authority.cert_pem.bytes().decode()
            yield server


@contextmanager
def at_official_names(server, monkeypatch):
    """Let the official names lead to a server, and trust it."""
    for name in _PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a")
    with _leading_to(server.port), _trusting(server.authority):
        yield


@contextmanager
def _leading_to(port):
    """Resolve the official names, and connect to a port of this machine instead."""
    resolve = socket.getaddrinfo
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def resolved(host, port, *args, **kwargs):
        name = _text(host)
        if name in OFFICIAL:
            return resolve(*_PLACE, *args, **kwargs)
        if name in _HERE or name == _PLACE[0]:
            return resolve(host, port, *args, **kwargs)
        raise socket.gaierror(socket.EAI_NONAME, f"the tests resolve no {name!r}")

    def there(address):
        return ("127.0.0.1", port) if address == _PLACE else address

    with (
        patch.object(socket, "getaddrinfo", resolved),
        patch.object(socket.socket, "connect", lambda self, to: connect(self, there(to))),
        patch.object(socket.socket, "connect_ex", lambda self, to: connect_ex(self, there(to))),
    ):
        yield


@contextmanager
def _trusting(authority):
    """Trust an authority where a connection to an official name is secured."""

    def patched(wrap):
        @functools.wraps(wrap)
        def wrapping(context, *args, **kwargs):
            # Positions as `wrap_bio` has them; nobody passes `wrap_socket` a name by position.
            names = {_text(name) for name in (kwargs.get("server_hostname"), *args[3:4])}
            if not names.isdisjoint(OFFICIAL):
                context.load_verify_locations(cadata=authority)
            return wrap(context, *args, **kwargs)

        return wrapping

    with (
        patch.object(ssl.SSLContext, "wrap_bio", patched(ssl.SSLContext.wrap_bio)),
        patch.object(ssl.SSLContext, "wrap_socket", patched(ssl.SSLContext.wrap_socket)),
    ):
        yield


def _text(name):
    return name.decode() if isinstance(name, bytes) else str(name or "")
