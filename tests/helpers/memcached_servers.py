"""Real memcached servers for tests, where the program is there: on a free port of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import Any

import pytest

from tests.helpers.frozen import freeze

MEMCACHED = shutil.which("memcached")
MISSING = "memcached isn't on PATH, and no wheel has it: install it to run these"
READY = 20.0  # seconds that a server may take to answer


class Memcached:
    """One server process of our own."""

    def __init__(self, *options):
        """Prepare; ``options`` are further words of its command line."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.options = options
        self.process: Any = None

    def start(self):
        """Start it, and wait until it answers."""
        assert MEMCACHED is not None
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        self.process = subprocess.Popen(
            [MEMCACHED, "-l", "127.0.0.1", "-p", str(self.port), *user, *self.options]
        )
        end = time.monotonic() + READY
        while True:
            try:
                self.ask(b"version\r\n")
                return
            except OSError:
                assert time.monotonic() < end, "memcached doesn't answer"
                time.sleep(0.01)

    def ask(self, command):
        """Send one command, and return the line that answers it."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=READY) as connection:
            connection.sendall(command)
            return connection.makefile("rb").readline()

    def empty(self):
        """Remove all keys."""
        assert self.ask(b"flush_all\r\n") == b"OK\r\n"

    def freeze(self):
        """Let it not answer, its connections staying."""
        freeze(self.process)

    def thaw(self):
        """Let it answer again."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        """End it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()


@contextmanager
def running(*options):
    """Run a server; the test is skipped where the program isn't there."""
    if MEMCACHED is None:
        pytest.skip(MISSING)
    with Memcached(*options) as server:
        yield server
