"""The examples of README.md and docs/: each page is run from top to bottom, like one session."""

from __future__ import annotations

import re
import subprocess
import sys
import types

import openai
import pytest
from llmock.testing import LLMockServer

import asynccache
from tests.helpers.pages import PAGES, ROOT, blocks_of
from tests.helpers.redis_servers import Valkey

LINK = re.compile(r"\[[^\]]+\]\((?!\w+:)([^)#]+)[^)]*\)")

# Calls that reach the server, by page and heading; those that aren't named make none.
CALLS = {
    ("README.md", "A client with a cache on disk"): 1,
    ("README.md", "Streams"): 1,
    ("README.md", "The first pitfall: five identical calls are one answer"): 4,
    ("README.md", "Per call: mode, ttl, sample"): 3,
    ("README.md", "Recorded answers in CI"): 1,
    ("README.md", "Coming from AutoGen: `OpenAIWrapper`"): 1,
    ("doors.md", "Embeddings"): 2,
    ("README.md", "Redis, for many machines"): 1,
    ("index.md", "asynccache"): 1,
    ("wrapper.md", "A list of models"): 1,
    ("wrapper.md", "Which cache"): 3,
    ("wrapper.md", "Filters"): 1,
    ("wrapper.md", "Templates"): 1,
    ("wrapper.md", "Streams"): 1,
    ("wrapper.md", "Without awaiting"): 2,
}


@pytest.fixture(scope="module")
def server():
    """Run a server that speaks like OpenAI's."""
    with LLMockServer() as running:
        yield running


@pytest.fixture(scope="module")
def valkey():
    """Run the Redis that the examples find by an environment variable."""
    with Valkey() as running:
        yield running


@pytest.fixture
async def session(server, valkey, tmp_path, monkeypatch):
    """Give a namespace to type into, in an empty folder, where the SDK finds the server."""
    monkeypatch.setenv("REDIS_URL", valkey.url)
    with valkey.client() as client:
        client.flushall()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url("openai"))
    monkeypatch.setenv("OPENAI_API_KEY", "made-up")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("CI", raising=False)
    clients = []
    original = openai.AsyncOpenAI.__init__

    def noting(self, *args, **kwargs):
        original(self, *args, **kwargs)
        clients.append(self)

    monkeypatch.setattr(openai.AsyncOpenAI, "__init__", noting)
    module = types.ModuleType("session")
    monkeypatch.setitem(sys.modules, "session", module)
    server.state.reset()
    yield vars(module)
    asynccache.set_default_cache(None)
    asynccache.uninstrument_openai()
    for client in clients:
        await client.close()


def calls(server):
    """Return how many calls have reached the server since it was last asked."""
    count = len(server.state.journal.records(wait=2))
    server.state.journal.clear()
    return count


@pytest.mark.parametrize("page", [p for p in PAGES if blocks_of(p)], ids=lambda page: page.name)
async def test_examples_run(page, server, session):
    """Every example works as it stands, and makes as many calls as it should."""
    for block in blocks_of(page):
        await block.run(session)
        expected = CALLS.get((page.name, block.heading), 0)
        assert calls(server) == expected, f"{block.heading}, line {block.line}"


def test_expected_calls_name_headings():
    """The table of calls names examples that are there."""
    there = {(page.name, block.heading) for page in PAGES for block in blocks_of(page)}
    assert CALLS.keys() <= there


async def test_recorded_answers_are_replayed(server, session, monkeypatch):
    """What the example for CI has recorded is replayed there, and nothing else is."""
    first, *_ = blocks_of(ROOT / "README.md")
    (block,) = [b for b in blocks_of(ROOT / "README.md") if b.heading == "Recorded answers in CI"]
    await first.run(session)
    await block.run(session)
    recorded = session["answer"]
    calls(server)
    monkeypatch.setenv("CI", "true")
    await block.run(session)
    assert session["answer"] == recorded
    session["question"]["temperature"] = 2
    with pytest.raises(asynccache.ReplayMiss):
        await block.run(session)
    assert calls(server) == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """A link to a file of the project names one that is there."""
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_store_in_the_docs_keeps_the_contract(tmp_path):
    """The store and its test in docs/stores.md, put into a file, pass."""
    source = "\n".join(block.source for block in blocks_of(ROOT / "docs" / "stores.md"))
    file = tmp_path / "test_own_store.py"
    file.write_text(source, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), str(file)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    assert " passed" in ended.stdout
