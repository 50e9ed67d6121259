"""The project's tasks, each in an environment of its own. `nox -l` lists them."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2026.8.10"  # the first that runs sessions side by side
nox.options.default_venv_backend = "uv|venv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["check"]

PROJECT = nox.project.load_toml()
PYTHONS = nox.project.python_versions(PROJECT)
BENCHMARKS = Path("benchmarks")
TYPED = ("src", "benchmarks", "examples", "tests", "tools")
# What frameworks' own tests bring along for pytest: it would run, record or cut off ours.
FOREIGN_PLUGINS = (
    "asyncio", "codspeed", "langsmith_plugin", "socket", "syrupy",
)  # fmt: skip

# A process for each core, and whole files to each, as the tests of a file share servers; `-- -n0`
# undoes it. Where psutil is installed, "auto" would take two threads of one core for one.
PARALLEL = ("-n", "logical", "--maxprocesses=4", "--dist=loadfile")


# What `tests_fast` leaves out: what needs a server of a store, starts processes, or takes long.
SLOW = (
    "core/test_processes.py", "core/test_state_machine.py", "docs", "extras", "frameworks",
    "http/test_litellm.py", "http/test_sdks.py", "integrations",
    "openai/client/test_gevent.py", "openai/client/test_keys.py",
    "openai/client/test_matrix.py", "openai/client/test_storm.py",
    "openai/client/test_sync.py", "openai/client/test_wrap.py",
    "openai/embeddings", "openai/wrapper/test_loops.py", "stores/aiocache", "stores/cosmos",
    "stores/disk/test_crash.py", "stores/disk/test_evict.py", "stores/disk/test_failures.py",
    "stores/disk/test_safety.py", "stores/redis", "test_demo.py",
)  # fmt: skip
# The package's extras, each to be tested alone; and it without any.
EXTRAS = ("none", *PROJECT["project"]["optional-dependencies"])
EAGER = ("3.12", "3.13")  # two of the Pythons that have eager tasks
# What `matrix` runs, besides `tests` on the other Pythons, `tests_eager` and `tests_extra`.
MATRIX = (
    "tests_openai2", "tests_openai_oldest", "tests_sdks_oldest",
    "tests_frameworks", "tests_frameworks_openai2", "tests_frameworks_autogen02",
)  # fmt: skip

os.environ.update(runpy.run_path("tools/certificates.py")["additions"]())


def offer_pyenvs_pythons() -> None:
    """Let sessions start each Python that pyenv has, not only the one that it is set to."""
    if "PYENV_VERSION" in os.environ or shutil.which("pyenv") is None:
        return
    current, installed = (
        subprocess.check_output(["pyenv", *words], text=True).split()  # noqa: S603, S607
        for words in (["version-name"], ["versions", "--bare"])
    )
    ours = [name for name in reversed(installed) if name.rpartition(".")[0] in PYTHONS]
    os.environ["PYENV_VERSION"] = ":".join([*current, *ours])


offer_pyenvs_pythons()


def install(session: nox.Session, group: str, *, extra: str = "all") -> None:
    """Install the package with one extra, and one dependency group."""
    session.install("-e", f".[{extra}]", *nox.project.dependency_groups(PROJECT, group))


@nox.session(python=False, requires=["lint", "typing", "tests_fast"])
def check(session: nox.Session) -> None:
    """Run what takes a minute: lint, types, and the fast tests; `-j 2` does it side by side."""
    session.log("lint, types and the fast tests are good")


@nox.session(allow_parallel=True)
def tests_fast(session: nox.Session) -> None:
    """Run the tests that take no more than a moment, on one of the two event loops."""
    install(session, "test")
    fast = ["-k", "not uvloop", *(f"--ignore=tests/{path}" for path in SLOW)]
    session.run("pytest", "-q", *PARALLEL, *(session.posargs or fast))


@nox.session(python=False)
def matrix(session: nox.Session) -> None:
    """Run what `make test` leaves out: other SDK versions, frameworks, Pythons, extras, tasks."""
    this = "{}.{}".format(*sys.version_info)
    others = [f"tests-{python}" for python in PYTHONS if python != this]
    eager = [f"tests_eager-{python}" for python in EAGER]
    for name in (*MATRIX, *others, *eager, *(f"tests_extra({extra})" for extra in EXTRAS)):
        session.notify(name)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests, with the newest versions of the SDKs and real servers."""
    # All drivers: that `import asynccache` loads none of them shows only where they are there.
    install(session, "test")
    session.run_install("python", "-m", "tests.helpers.cosmos_servers")
    elsewhere = ("--ignore=tests/extras", "--ignore=tests/frameworks")
    session.run("pytest", *PARALLEL, *elsewhere, *session.posargs)


@nox.session(python=EAGER)
def tests_eager(session: nox.Session) -> None:
    """Run the tests of kernel and stores under eager tasks, which begin where they are made."""
    install(session, "test")
    session.run_install("python", "-m", "tests.helpers.cosmos_servers")
    paths = [f"tests/{name}" for name in ("cache", "core", "runtime", "stores")]
    eager = {"ASYNCCACHE_TASKS": "eager"}
    session.run("pytest", *PARALLEL, *(session.posargs or paths), env=eager)


@nox.session
@nox.parametrize("extra", EXTRAS, ids=EXTRAS)
def tests_extra(session: nox.Session, extra: str) -> None:
    """Run the tests of an extra in an environment that holds it alone."""
    session.install("-e", "." if extra == "none" else f".[{extra}]")
    session.install(*nox.project.dependency_groups(PROJECT, "alone"))
    # Not the common conftest, which needs more than these have.
    session.run("pytest", "--noconftest", *session.posargs, f"tests/extras/test_{extra}.py")


@nox.session
def tests_frameworks(session: nox.Session) -> None:
    """Run the tests of the frameworks that work with the newest SDK."""
    install(session, "frameworks")
    run_framework_tests(session, "newest")


@nox.session
def tests_frameworks_openai2(session: nox.Session) -> None:
    """Run the tests of the frameworks that need the SDK's 2.x."""
    install(session, "frameworks-openai2")
    run_framework_tests(session, "openai2")


@nox.session
def tests_frameworks_autogen02(session: nox.Session) -> None:
    """Run the tests of AutoGen 0.2, whose module AG2's has taken the name of."""
    install(session, "frameworks-autogen02")
    run_framework_tests(session, "autogen02")


@nox.session
def tests_frameworks_named(session: nox.Session) -> None:
    """Run the tests of frameworks that take minutes to install; `matrix` leaves them out."""
    install(session, "frameworks-named", extra="openai")
    run_framework_tests(session, "named")


@nox.session
def tests_frameworks_crewai(session: nox.Session) -> None:
    """Run those of CrewAI, which needs an environment of its own; `matrix` leaves it out too."""
    install(session, "frameworks-crewai", extra="openai")
    run_framework_tests(session, "crewai")


def run_framework_tests(session: nox.Session, folder: str) -> None:
    """Run what is in one folder: the tests of the frameworks of one environment."""
    unwanted = [word for name in FOREIGN_PLUGINS for word in ("-p", f"no:{name}")]
    session.run(
        "pytest", *PARALLEL, *unwanted, *(session.posargs or [f"tests/frameworks/{folder}"])
    )


@nox.session(name="cosmos-live")
def cosmos_live(session: nox.Session) -> None:
    """Run the store contract against the account that COSMOS_CONNECTION_STRING names."""
    if not os.environ.get("COSMOS_CONNECTION_STRING"):
        session.skip("COSMOS_CONNECTION_STRING isn't set, so there is no account to test against")
    install(session, "test")
    tests = "tests/stores/cosmos/test_contract.py"
    session.run("pytest", tests, *session.posargs, env={"ASYNCCACHE_COSMOS": "live"})


@nox.session
def tests_openai2(session: nox.Session) -> None:
    """Run the tests of the client on the SDK's 2.x, which stands on another HTTP library."""
    install(session, "test-openai2", extra="openai")
    run_client_tests(session)


@nox.session
def tests_openai_oldest(session: nox.Session) -> None:
    """Run the same on the oldest version of the SDK that is supported."""
    install(session, "test-openai2", extra="openai")
    needs = PROJECT["project"]["optional-dependencies"]["openai"]
    (sdk,) = [each for each in needs if each.startswith("openai")]
    session.install(sdk.partition(",")[0].replace(">=", "=="))
    run_client_tests(session)


@nox.session
def tests_sdks_oldest(session: nox.Session) -> None:
    """Run the tests of other providers' SDKs on the oldest versions that frameworks ask for."""
    install(session, "sdks-oldest", extra="openai")
    session.run("pytest", *PARALLEL, *(session.posargs or ["tests/http/test_sdks.py"]))


def run_client_tests(session: nox.Session) -> None:
    """Run what touches the SDK, on one of the two event loops that `tests` runs it on."""
    session.run("pytest", *PARALLEL, *(session.posargs or ["tests/openai", "-k", "not uvloop"]))


@nox.session(allow_parallel=True)
def lint(session: nox.Session) -> None:
    """Check rules and formatting."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session(allow_parallel=True)
def typing(session: nox.Session) -> None:
    """Check types with mypy and pyright."""
    install(session, "typing")
    session.run("mypy", *TYPED)
    # Told its Python, since it prefers a `.venv` here, which holds nox alone.
    session.run("basedpyright", "--pythonpath", f"{session.bin}/python")


@nox.session
def house(session: nox.Session) -> None:
    """Print how large the source is, and which way a call takes through it; `-- --verbose`."""
    session.install("-e", ".[openai]")
    session.run("python", "tools/house.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into `site`."""
    session.install(*nox.project.dependency_groups(PROJECT, "docs"))
    session.run("python", "tools/reference.py")
    session.run("zensical", "build", "--clean", "--strict")


@nox.session
def demo(session: nox.Session) -> None:
    """Show a swarm of agents on one cache; `-- --live` asks the real API."""
    install(session, "demo", extra="openai")
    session.run("python", "examples/swarm.py", *session.posargs)


@nox.session(requires=["bench_ag2"])
def bench(session: nox.Session) -> None:
    """Measure against the peers; tables on the screen, figures in `benchmarks/results`."""
    install(session, "bench", extra="openai,redis")
    run_benchmarks(session, "bench_*.py")


@nox.session
def bench_ag2(session: nox.Session) -> None:
    """Measure against AG2, which needs an older openai; `bench` runs this first."""
    install(session, "bench-ag2", extra="openai")
    run_benchmarks(session, "ag2_*.py")


def run_benchmarks(session: nox.Session, pattern: str) -> None:
    """Run the scripts that match, each writing its figures to `benchmarks/results`."""
    results = BENCHMARKS / "results"
    results.mkdir(exist_ok=True)
    for script in sorted(BENCHMARKS.glob(pattern)):
        figures = results / f"{script.stem}.json"
        session.run("python", str(script), "--json", str(figures), *session.posargs)
