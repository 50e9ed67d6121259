"""The examples of README.md and docs/: each page is run from top to bottom, like one session.

An example that begins with the name of a file is a program, and is run as one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from collections import Counter
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from llmock.testing import LLMockServer

import asynccache
from tests.helpers.pages import PAGES, REFERENCE, ROOT, blocks_of
from tests.helpers.redis_servers import Valkey
from tools.reference import PAGES as REFERENCE_PAGES

LINK = re.compile(r"\[[^\]]+\]\((?!\w+:)([^)#]*)(?:#([^)]+))?\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
README_CHARACTERS = 8000
STORE_LINES = 40

# Calls that reach the server, by page and heading, all examples under it together; those that
# aren't named make none.
CALLS = {
    ("README.md", "First example"): 1,
    ("README.md", "Agents in frameworks"): 1,
    ("README.md", "Independent answers"): 4,
    ("index.md", "asynccache"): 1,
    ("any-provider.md", "Wrap the client"): 1,
    ("any-provider.md", "Where did an answer come from?"): 1,
    ("openai-wrapper.md", "A list of models"): 1,
    ("openai-wrapper.md", "Which cache"): 3,
    ("openai-wrapper.md", "Filters"): 1,
    ("openai-wrapper.md", "Templates"): 1,
    ("openai-wrapper.md", "Streams"): 1,
    ("openai-wrapper.md", "Without awaiting"): 2,
    ("supported-endpoints.md", "Embeddings"): 2,
    ("swarm.md", "One cache for all"): 3,
    ("swarm.md", "Streams"): 1,
    ("swarm.md", "Independent answers"): 5,
    ("tests-in-ci.md", "Record and replay"): 1,
    ("tenants.md", "One cache for all tenants"): 2,
    ("tutorial.md", "2. Ask twice, pay once"): 1,
    ("tutorial.md", "3. Ask a hundred times at once"): 1,
    ("tutorial.md", "4. Record answers for a test"): 1,
    ("web-service.md", "Serve web requests"): 1,
    ("invalidation.md", "Refresh"): 2,
    ("invalidation.md", "Forget a bad answer"): 1,
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
    for provider in ("openai", "anthropic"):
        monkeypatch.setenv(f"{provider.upper()}_BASE_URL", server.base_url(provider))
        monkeypatch.setenv(f"{provider.upper()}_API_KEY", "made-up")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("CI", raising=False)
    clients: list[Any] = []
    for kind in (openai.AsyncOpenAI, anthropic.AsyncAnthropic):
        monkeypatch.setattr(kind, "__init__", noting(kind.__init__, clients))
    module = types.ModuleType("session")
    monkeypatch.setitem(sys.modules, "session", module)
    server.state.reset()
    yield vars(module)
    asynccache.set_default_cache(None)
    asynccache.uninstrument()
    for client in clients:
        await client.close()


def noting(original, clients):
    """Return a constructor that notes what it makes."""

    def init(self, *args, **kwargs):
        original(self, *args, **kwargs)
        clients.append(self)

    return init


def calls(server):
    """Return how many calls have reached the server since it was last asked."""
    count = len(server.state.journal.records(wait=2))
    server.state.journal.clear()
    return count


def run_file(block):
    """Run an example that is a file, by pytest if it is a test; return what it prints."""
    Path(block.file).write_text(block.source, encoding="utf-8")
    runner = ["-m", "pytest", "-q"] if block.file.startswith("test_") else []
    ended = subprocess.run(
        [sys.executable, *runner, block.file],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def expected_of(page, made):
    """Return the calls that the examples which were run should have made, by heading."""
    return {heading: CALLS.get((page.name, heading), 0) for heading in made}


SESSIONS = {page: [b for b in blocks_of(page) if not b.file] for page in PAGES}


@pytest.mark.parametrize("page", [p for p in PAGES if SESSIONS[p]], ids=lambda page: page.name)
async def test_examples_run(page, server, session, capsys):
    """Every example works as it stands, prints what the page says, and makes its calls."""
    made: Counter[str] = Counter()
    for block in SESSIONS[page]:
        capsys.readouterr()
        await block.run(session)
        printed = capsys.readouterr().out
        assert block.output is None or printed == block.output, f"line {block.line}"
        made[block.heading] += calls(server)
    assert made == expected_of(page, made)


def run_files(page, blocks, server):
    """Run the programs of a page; check what they print, and the calls they make."""
    made: Counter[str] = Counter()
    for block in blocks:
        printed = run_file(block)
        assert block.output is None or printed == block.output, block.file
        made[block.heading] += calls(server)
    assert made == expected_of(page, made)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("name", ["README.md", "docs/index.md"])
async def test_programs_run(name, server, session):
    """Every program works as it stands, prints what the page says, and makes its calls."""
    page = ROOT / name
    run_files(page, [block for block in blocks_of(page) if block.file], server)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_tutorial_ends_in_replay(server, session, monkeypatch):
    """The tutorial's test records once, and needs no server in CI; another question fails there."""
    page = ROOT / "docs" / "tutorial.md"
    blocks = blocks_of(page)
    run_files(page, blocks, server)
    monkeypatch.setenv("CI", "true")
    run_file(blocks[-1])
    blocks[-1].source = blocks[-1].source.replace('"sky")', '"sea")')
    with pytest.raises(AssertionError, match="ReplayMiss"):
        run_file(blocks[-1])
    assert calls(server) == 0


def test_expected_calls_name_headings():
    """The table of calls names examples that are there."""
    there = {(page.name, block.heading) for page in PAGES for block in blocks_of(page)}
    assert CALLS.keys() <= there


@pytest.mark.parametrize("name", ["README.md", "docs/index.md", "docs/tutorial.md"])
def test_first_examples_show_a_miss_and_a_hit(name):
    """Where people begin, the first example comes with its output, which a test compares."""
    first, *_ = blocks_of(ROOT / name)
    assert first.output == "miss\nhit\n"


def test_readme_is_short():
    """README.md can be read in a few minutes."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8")) <= README_CHARACTERS


async def test_recorded_answers_are_replayed(server, session, monkeypatch):
    """What the example for CI has recorded is replayed there, and nothing else is."""
    first, block, _ = blocks_of(ROOT / "docs" / "guides" / "tests-in-ci.md")
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


def slugs_of(page):
    """Return the anchors of a page's headings, as the docs builder and GitHub make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    plain = (re.sub(r"[^\w\s-]", "", h.lower()).strip() for h in HEADING.findall(text))
    return {re.sub(r"\s", "-", heading) for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """A link to a file of the project names one that is there, and a heading that it has."""
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        there = (page.parent / target).resolve() if target else page
        if REFERENCE in there.parents:
            assert there.stem in {"index", *REFERENCE_PAGES}, target
        else:
            assert there.exists(), target
            assert not anchor or anchor in slugs_of(there), f"{target}#{anchor}"


def test_the_store_in_the_docs_keeps_the_contract(tmp_path):
    """The store and its test in docs/stores/own-store.md, put into a file, pass."""
    store, _, contract = blocks_of(ROOT / "docs" / "stores" / "own-store.md")
    assert store.source.count("\n") - store.source.count("\n\n") <= STORE_LINES
    file = tmp_path / "test_own_store.py"
    file.write_text(store.source + contract.source, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), str(file)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    assert " passed" in ended.stdout
