"""`memoize`: names of functions, their annotations, wrong arguments."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

import asynccache
from asynccache import Cache
from asynccache.cache.function_keys import FunctionKeys
from asynccache.keys.normalizer import normalizer
from tests.cache.test_values import Made, Point
from tests.helpers.detectors import ALLOWED, detecting

if TYPE_CHECKING:  # so that they are unknown
    from tests.cache.test_values import Derived as Later, Derived as Unknown

pytestmark = pytest.mark.anyio

SCRIPT = """
import asyncio
import asynccache
from asynccache import Cache

@asynccache.memoize(VERSION)
async def load(number: int) -> str:
    print("called")
    return "from NAME"

async def main():
    async with Cache.disk(cache_path_root="FOLDER"):
        print(await load(1))

if __name__ == "__main__":
    asyncio.run(main())
"""


class One(BaseModel):
    """One alternative of an annotation."""

    x: int


class Other(BaseModel):
    """Another that looks alike in bytes."""

    x: int


@pytest.fixture
async def cache():
    """An open cache."""
    async with Cache.memory() as opened:
        yield opened


@pytest.fixture
def script(tmp_path):
    """Write a script, and return what runs it and says what it printed, and its path."""

    def write(name, *, place="", version=""):
        folder = tmp_path / place
        folder.mkdir(exist_ok=True)
        text = SCRIPT.replace("NAME", name).replace("FOLDER", str(tmp_path / "cache"))
        path = folder / f"{name}.py"
        path.write_text(text.replace("VERSION", version))

        def run(*args, cwd=folder, stdin=None):
            done = subprocess.run(
                [sys.executable, *(args or (path,))],
                cwd=cwd,
                input=stdin,
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
            return done.stdout.split("\n")[:-1]

        return run, path

    return write


# -- names -------------------------------------------------------------------------------------


def test_functions_of_two_scripts_never_meet(script, tmp_path):
    """A script's functions are found by it alone, wherever it is run from."""
    (first, path), (second, _) = script("first"), script("second")
    assert first() == ["called", "from first"]
    assert second() == ["called", "from second"]
    assert first(path, cwd=tmp_path.parent) == ["from first"]
    assert first("first.py") == ["from first"]


def test_scripts_of_one_name_in_two_folders_never_meet(script):
    """Another file of the same name is another script."""
    for place in ("a", "b"):
        run, _ = script("main", place=place)
        assert run() == ["called", "from main"]
        assert run() == ["from main"]


def test_function_of_a_module_that_is_run_is_that_of_the_module(script):
    """`python -m` gives a function the name that it has where its module is imported."""
    run, _ = script("tool")
    assert run("-m", "tool") == ["called", "from tool"]
    assert run("-c", "import asyncio, tool; asyncio.run(tool.main())") == ["from tool"]


def test_process_that_a_script_spawns_knows_its_functions(script):
    """In a process started by `multiprocessing`, a script's module has another name."""
    run, path = script("spawning")
    text = path.read_text()
    path.write_text(
        text.replace("if __name__", "def again():\n    asyncio.run(main())\n\nif __name__")
        + "    from multiprocessing import get_context\n"
        "    child = get_context('spawn').Process(target=again)\n"
        "    child.start()\n"
        "    child.join()\n"
    )
    assert run() == ["called", "from spawning", "from spawning"]


@pytest.mark.parametrize("kind", ALLOWED)
async def test_a_script_is_named_beneath_a_detector(kind, tmp_path, monkeypatch):
    """Where a loop runs, no call that may block it is needed for a function's name."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__", "__file__": "sub/../script.py"}
    text = "async def f(body): return body\ndef g(body): return body"
    exec(compile(text, names["__file__"], "exec"), names)
    with detecting(kind):
        keys, named = FunctionKeys(names["f"], [], 1), normalizer(1)(names["g"])  # type: ignore[arg-type]
    assert keys.key((1,), {})[0] == f"{tmp_path / 'script.py'}:f"
    assert named.name == f"{tmp_path / 'script.py'}:g"


CLASSES = """
import asyncio, dataclasses, enum, multiprocessing, pydantic, sys
from asynccache import Cache

class Model(enum.Enum):
    FAST = "VALUE"

@dataclasses.dataclass
class Question:
    model: Model

class Outer:
    class Prompt(pydantic.BaseModel):
        text: str = ""

async def made():
    print("called", flush=True)
    return 1

async def main():
    async with Cache.disk(cache_path_root="FOLDER") as cache:
        for key in (Model.FAST, Question(Model.FAST), Outer.Prompt()):
            await cache.get_or_create(key, made)

def again():
    asyncio.run(main())

if __name__ == "__main__":
    asyncio.run(main())
    for name in sys.argv[1:]:
        child = multiprocessing.get_context(name).Process(target=again)
        child.start()
        child.join()
        print(name, child.exitcode)
"""


@pytest.fixture
def classes(script, tmp_path):
    """Write a script that makes keys of its own classes, and return what runs it."""

    def write(name, value):
        run, path = script(name)
        text = CLASSES.replace("FOLDER", str(tmp_path / "cache")).replace("VALUE", value)
        path.write_text(text)
        return run, path

    return write


def test_classes_of_a_script_are_the_same_in_processes_that_it_starts(classes):
    """In a process started by `multiprocessing`, the script's module has another name."""
    run, path = classes("classes", "gpt-4o")
    started = ["spawn", "forkserver"]
    assert run(path, *started) == ["called"] * 3 + ["spawn 0", "forkserver 0"]
    run, path = classes("module", "gpt-5")
    assert run("-c", "import asyncio, module; asyncio.run(module.main())") == ["called"] * 3
    assert run("-m", "module", *started) == ["spawn 0", "forkserver 0"]


def test_scripts_share_what_is_the_same_alone(classes):
    """A member of another value is another key, though the scripts' enums share a name."""
    assert classes("one", "gpt-4o")[0]() == ["called"] * 3
    assert classes("other", "gpt-5")[0]() == ["called"] * 2
    assert classes("third", "gpt-4o")[0]() == []


def test_functions_of_interactive_sessions_are_found_in_their_session(script):
    """What has no file has no name that others couldn't have, unless its version says so."""
    run, path = script("typed")
    assert run("-", stdin=path.read_text()) == ["called", "from typed"]
    assert run("-", stdin=path.read_text()) == ["called", "from typed"]
    named, other = script("named", version="version='mine'")
    assert named("-", stdin=other.read_text()) == ["called", "from named"]
    assert named("-", stdin=other.read_text()) == ["from named"]


async def test_session_function_is_cached_within_its_session(cache, caplog):
    """It is paid for once there, and told once."""
    names = {"__name__": "__main__", "cache": cache}
    exec("@cache.memoize()\nasync def typed(x: int) -> int:\n    return x + 1\n", names)
    assert [await names["typed"](1) for _ in range(3)] == [2, 2, 2]
    assert cache.stats().hits == 2
    (told,) = [record.getMessage() for record in caplog.records]
    assert "version=" in told


async def test_modules_keep_their_names():
    """A function of a module is known by the module's name and its own."""

    async def function(): ...

    assert FunctionKeys(function, (), None).key((), {})[0] == (
        "tests.cache.test_memoize.test_modules_keep_their_names.<locals>.function"
    )


# -- annotations -------------------------------------------------------------------------------


async def test_only_the_return_annotation_matters(cache):
    """A parameter's annotation that can't be read, as of an import for checkers, is no harm."""

    @cache.memoize()
    async def make(session: Unknown | None = None) -> Point:
        return Point(1)

    assert [await make() for _ in range(2)] == [Point(1)] * 2
    assert cache.stats().hits == 1


async def test_return_annotation_that_cannot_be_read_changes_no_result(cache, caplog):
    """Results stay what they are; plain data is stored, the rest isn't, and both is told once."""
    made = Made(Point(1))

    @cache.memoize()
    async def make() -> Unknown:
        return await made()

    assert [await make() for _ in range(2)] == [Point(1)] * 2
    made.value = {"x": 1}
    assert [await make() for _ in range(2)] == [{"x": 1}] * 2
    assert made.calls == 3
    told = [record.getMessage() for record in caplog.records]
    assert len([text for text in told if "can't be used" in text]) == 1


async def test_annotation_that_is_read_late_and_cannot_be_built_takes_no_call_down(cache):
    """What shows only at the first call costs the entry, and not the result."""

    @cache.memoize()
    async def either() -> Later | Other:
        return Other(x=1)

    globals()["Later"] = One
    try:
        assert [await either() for _ in range(2)] == [Other(x=1)] * 2
    finally:
        del globals()["Later"]
    assert cache.stats().not_stored == {"inexact": 2}


def test_annotation_that_cannot_be_built_is_said_at_once():
    """Where it can be read when decorating, it is refused there."""
    with pytest.raises(TypeError, match="annotate otherwise"):

        @asynccache.memoize()
        async def either() -> One | Other:
            raise NotImplementedError

    with Cache.memory() as cache, pytest.raises(TypeError, match="annotate otherwise"):

        @cache.memoize()
        def plain() -> One | Other:
            raise NotImplementedError


@dataclasses.dataclass
class Own:
    """It makes others of its own class."""

    x: int

    @asynccache.memoize()
    async def next(self) -> Own:
        """Return the next one."""
        return Own(self.x + 1)


async def test_method_may_return_its_own_class(cache):
    """A class that isn't there yet when its method is decorated is when it is called."""
    assert [await Own(1).next() for _ in range(2)] == [Own(2)] * 2
    assert cache.stats().hits == 1


# -- methods of classes ------------------------------------------------------------------------


class Tools:
    """Methods that belong to a class."""

    calls = 0

    @classmethod
    @asynccache.memoize()
    async def refused(cls, x: int) -> int:
        """Have a class in the key."""
        return x

    @classmethod
    @asynccache.memoize(ignore=["cls"])
    async def ignoring(cls, x: int) -> int:
        """Have none."""
        Tools.calls += 1
        return x

    @staticmethod
    @asynccache.memoize()
    async def static(x: int) -> int:
        """Have none."""
        Tools.calls += 1
        return x


class Base:
    """Has methods whose results depend on the class, which is all that they know of it."""

    suffix = "base"

    @classmethod
    @asynccache.memoize(ignore=["cls"])
    async def of_class(cls) -> str:
        """Return what a derived class has another of."""
        return cls.suffix

    @asynccache.memoize(ignore=["self"])
    async def of_object(self) -> str:
        """Do as the other, for an object."""
        return self.suffix

    class Inner:
        """A class in a class."""

        @asynccache.memoize(ignore=["self"])
        async def named(self) -> str:
            """Return a name."""
            return type(self).__name__

    @classmethod
    @asynccache.memoize(ignore=["klass"])
    async def of_klass(klass) -> str:  # noqa: N804 - a name of one's own
        """Do as the first."""
        return klass.suffix

    @asynccache.memoize(ignore=["agent"])
    async def of_agent(agent) -> str:  # noqa: N805 - a name of one's own
        """Do as the second."""
        return agent.suffix

    @asynccache.memoize(ignore=["given"])
    async def of_any(*given) -> str:
        """Do as the second."""
        return given[0].suffix


@asynccache.memoize(ignore=["agent"])
async def of_patched(agent) -> str:
    """Return what a derived class has another of."""
    return agent.suffix


Base.of_patched = of_patched  # type: ignore[attr-defined]


class Kind(type):
    """A class of classes."""

    @asynccache.memoize(ignore=["kind"])
    async def name_of(kind) -> str:  # noqa: N804 - a name of one's own
        """Return the name of a class."""
        return kind.__name__


class Kinds(metaclass=Kind):
    """Has another name than others of its kind."""


class OtherKinds(metaclass=Kind):
    """As above."""


class Sub(Base):
    """Has other results."""

    suffix = "sub"


def derived(suffix):
    """Return a class that is called as others are, and isn't found by its name."""
    return type("Sub", (Base,), {"suffix": suffix, "__module__": __name__})


def local(suffix):
    """Return a class of a function's."""

    class Local(Base):
        pass

    Local.suffix = suffix
    return Local


async def test_an_ignored_class_still_has_its_own_results(cache):
    """A derived class never gets its base's results, however its own came about."""
    kinds = [Base, Sub, derived("x"), derived("y"), local("a"), local("b")]
    for kind in (*kinds, *kinds):
        assert await kind.of_class() == kind.suffix
        assert await kind().of_object() == kind.suffix
        assert await kind().of_class() == kind.suffix
        assert await kind.of_klass() == kind.suffix
        assert await kind().of_agent() == kind.suffix
        assert await Base.of_agent(agent=kind()) == kind.suffix
        assert await kind().of_any() == kind.suffix
        assert await kind().of_patched() == kind.suffix
    assert [await kind.name_of() for kind in (Kinds, OtherKinds)] == ["Kinds", "OtherKinds"]
    assert await Base.Inner().named() == "Inner"
    assert cache.stats().misses == 6 * len(kinds) + 3


def test_classes_without_a_name_of_their_own_are_told_once(caplog):
    """The first call says what to do; with a version, the name is taken as it is."""
    method = inspect.unwrap(Base.of_object)
    keys, versioned = FunctionKeys(method, ["self"], None), FunctionKeys(method, ["self"], 1)
    first, second = local("a"), local("b")
    assert len({keys.key((kind(),), {})[3] for kind in (first, second, first)}) == 2
    assert len({versioned.key((kind(),), {})[3] for kind in (first, second)}) == 1
    (told,) = [record.getMessage() for record in caplog.records]
    assert "version=" in told


def test_classes_that_a_module_names_are_found_by_others(script):
    """The results of a script's classes are found by its next run, those of a function's aren't."""
    run, path = script("classes")
    path.write_text(
        """
import asyncio
import asynccache
from asynccache import Cache

class Base:
    @classmethod
    @asynccache.memoize(ignore=["cls"])
    async def load(cls) -> str:
        print("called for", cls.__name__)
        return cls.__name__

class Sub(Base):
    pass

async def main():
    class Local(Base):
        pass
    async with Cache.disk(cache_path_root="FOLDER"):
        for kind in (Base, Sub, Local, Base, Sub, Local):
            assert await kind.load() == kind.__name__

asyncio.run(main())
""".replace("FOLDER", str(path.parent / "cache"))
    )
    assert run() == ["called for Base", "called for Sub", "called for Local"]
    assert run() == ["called for Local"]


async def test_classes_are_treated_as_self_is(cache):
    """A class has no canonical form: it has to be ignored, which is said at the first call."""
    with pytest.raises(TypeError, match=r"ignore=\['cls'\]"):
        await Tools.refused(1)
    before = Tools.calls
    assert [await Tools.ignoring(1) for _ in range(2)] == [1, 1]
    assert [await Tools.static(1) for _ in range(2)] == [1, 1]
    assert Tools.calls - before == 2
    with pytest.raises(TypeError, match="put @classmethod or"):
        cache.memoize()(classmethod(Tools.static))  # type: ignore[arg-type] # the point


async def test_each_function_is_told_once_that_it_goes_past_the_cache(cache, caplog):
    """An argument without a canonical form is told for each function, by its name."""

    @cache.memoize()
    async def one(x: object) -> int:
        return 1

    @cache.memoize()
    async def two(x: object) -> int:
        return 2

    for function in (one, two, one, two):
        await function(object())
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert ".one:" in told[0]
    assert ".two:" in told[1]


# -- wrong arguments ---------------------------------------------------------------------------


async def test_wrong_arguments_of_memoize_are_refused(cache):
    """One name in place of several, and a decorator without its parentheses."""

    async def function(a: int, b: int) -> int:
        return a + b

    faces: list[Any] = [asynccache.memoize, cache.memoize]
    for memoize in faces:
        with pytest.raises(TypeError, match="several names"):
            memoize(ignore="ab")(function)
        with pytest.raises(TypeError, match=r"@memoize\(\)"):
            memoize(function)


def test_wrong_arguments_are_refused_without_awaiting_too():
    """The face for code that can't await refuses the same."""
    with Cache.memory() as cache:
        with pytest.raises(TypeError, match="several names"):
            cache.memoize(ignore="ab")(divmod)
        with pytest.raises(TypeError, match=r"@memoize\(\)"):
            cache.memoize(divmod)  # type: ignore[arg-type] # the point


async def test_function_that_is_memoized_twice_is_called_once(cache):
    """The inner one finds that the outer one is making its value, and goes past the cache."""
    made = Made(1)

    @cache.memoize()
    @cache.memoize()
    async def function() -> int:
        return await made()

    assert [await function() for _ in range(2)] == [1, 1]
    assert made.calls == 1
