"""Detectors of calls that block an event loop, as people have them."""

from __future__ import annotations

from contextlib import contextmanager

from blockbuster import BlockBuster

# What `langgraph dev` allows, of all that BlockBuster refuses: files, `os.path`, locks.
ALLOWED_BY_LANGGRAPH = (
    "io.BufferedReader.read", "io.BufferedWriter.write", "io.TextIOWrapper.read",
    "io.TextIOWrapper.write", "os.listdir", "os.path.", "os.remove", "os.stat",
    "threading.Lock.acquire",
)  # fmt: skip
ALLOWED = {"blockbuster": (), "langgraph dev": ALLOWED_BY_LANGGRAPH}


@contextmanager
def detecting(kind):
    """Refuse calls that block a loop, in the whole process."""
    detector = BlockBuster(excluded_modules=[])
    for name in [name for name in detector.functions if name.startswith(ALLOWED[kind])]:
        del detector.functions[name]
    detector.activate()
    try:
        yield
    finally:
        detector.deactivate()
