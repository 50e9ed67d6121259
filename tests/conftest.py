"""What all tests share: the event loops they run on, and how Hypothesis searches.

A test that hangs is ended by pytest-timeout (`pyproject.toml`), so none needs a watch of its own.
"""

from __future__ import annotations

import gc
import importlib.util
import os

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers import eager
from tests.helpers.matrix import MATRICES

settings.register_profile(
    "local",
    deadline=None,  # a slow machine is no bug
    max_examples=100,
    # A fixture of a property holds no state from one example to the next: clocks and loops only.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# In CI every run searches the same examples: a red run means that the change broke something.
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")

TABLES = pytest.StashKey[list[tuple[str, str]]]()

_LOOPS = [pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio")]
if eager.WANTED:
    _LOOPS = [pytest.param(eager.EAGER, id="eager")]
elif importlib.util.find_spec("uvloop"):  # not on Windows
    _LOOPS.append(pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))


@pytest.fixture(scope="module", params=_LOOPS)
def anyio_backend(request):
    """Run every asynchronous test on asyncio's own loop and on uvloop, or under eager tasks."""
    return request.param


@pytest.fixture(scope="module", autouse=True)
def swept():
    """Collect what a file's tests leave behind: asyncio would log it in the middle of others."""
    yield
    gc.collect()


def pytest_addoption(parser):
    """Add what regenerates measured parts of the docs."""
    parser.addoption(
        "--update-docs", action="store_true", help="write the measured tables of docs/ anew"
    )


def pytest_sessionfinish(session):
    """Hand the tables on, where a worker has measured them, to the process that prints them."""
    handed = getattr(session.config, "workeroutput", None)  # a worker of pytest-xdist has it
    if handed is not None:
        handed["tables"] = _tables()


@pytest.hookimpl(optionalhook=True)  # pytest-xdist's
def pytest_testnodedown(node, error):
    """Keep what a worker has measured."""
    tables = getattr(node, "workeroutput", {}).get("tables", [])
    node.config.stash.setdefault(TABLES, []).extend(tables)


def pytest_terminal_summary(terminalreporter, config):
    """Print the tables that were measured."""
    for title, table in [*_tables(), *config.stash.get(TABLES, [])]:
        terminalreporter.section(title)
        terminalreporter.write_line(table)


def _tables():
    """Return the title and the text of each table that this process has measured."""
    return [
        (matrix.title, text) for matrix in MATRICES if (text := matrix.for_terminal()) is not None
    ]
