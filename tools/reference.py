"""Write the reference into `docs/reference`, from the docstrings of the public names.

`nox -s docs` runs it before the docs builder, which can't read docstrings itself. It only reads the
sources: nothing is imported, and names are found through the packages' `__init__`, wherever they
are defined.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import griffe

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "docs" / "reference"

# Pages by file name: the title, what it is about, and the names, by module.
PAGES: Final[dict[str, tuple[str, str, dict[str, str]]]] = {
    "factories": (
        "Making a cache",
        "Each method of `Cache` makes a cache over one kind of store. Open it with `async with`.",
        {"asynccache": "Cache CacheOptions"},
    ),
    "cache": (
        "Using a cache",
        "`async with` gives an `AsyncCache`, a plain `with` gives a `SyncCache`.",
        {"asynccache": "AsyncCache SyncCache"},
    ),
    "functions": (
        "Functions",
        "These work on whichever cache is in force around the caller.",
        {
            "asynccache": "options memoize instrument uninstrument instrument_openai"
            " uninstrument_openai status record current_cache set_default_cache store_good"
            " canonical_value"
        },
    ),
    "normalizers": (
        "Normalizers",
        "Functions for `normalize=`: [keys](../concepts/keys.md) says what they are for.",
        {
            "asynccache.normalizers": "normalizer Normalizer by_pattern call_ids dates uuids"
            " schema_order"
        },
    ),
    "results": (
        "Answers, events and figures",
        "What `status`, `record`, `observer=`, `stats` and `store_if` give you.",
        {"asynccache": "Status CallEvent Stats Answer Mode MISSING Missing"},
    ),
    "exceptions": (
        "Exceptions",
        "[Errors](../errors.md) shows the tree and says when each is raised.",
        {
            "asynccache": "AsyncCacheError CacheClosedError ReplayMiss NotCanonicalError StoreError"
            " StoreUnavailableError StoreAuthError StoreFailoverError StoreLoadingError"
            " StoreThrottledError StoreTimeoutError StoreFullError StoreReadOnlyError"
            " StoreBusyError StoreDeniedError StoreRefusedError"
        },
    ),
    "http": (
        "HTTP clients",
        "`asynccache.http` needs no extra. See [any provider](../guides/any-provider.md).",
        {
            "asynccache.http": "CacheTransport SyncCacheTransport aiohttp_middleware register"
            " endpoint Provider Operation"
        },
    ),
    "openai": (
        "OpenAI",
        "`asynccache.openai` needs the extra `openai`.",
        {"asynccache.openai": "OpenAIWrapper wrap"},
    ),
    "integrations": (
        "Integrations",
        "Each module is named after its framework, and needs the extra of that name.",
        {
            "asynccache.integrations.autogen": "CachedChatCompletionClient"
            " CachedChatCompletionClientConfig",
            "asynccache.integrations.langchain": "LangChainCache",
            "asynccache.integrations.langgraph": "LangGraphCache",
            "asynccache.integrations.litellm": "LiteLLMCache",
            "asynccache.integrations.aiocache": "AsyncCacheBackend ValueSerializer cached",
        },
    ),
    "stores": (
        "The store contract",
        "For people who write a [store of their own](../stores/own-store.md).",
        {
            "asynccache.stores": "Store Capabilities Record Lease Claim Claimed Page Namespace"
            " Clock UNKNOWN Unknown ENVELOPE_BYTES"
        },
    ),
    "testing": (
        "Testing",
        "The store contract as tests, and doubles.",
        {"asynccache.testing": "StoreContract FaultyStore Call ManualClock Gate"},
    ),
}
HOMES: Final = {
    name: (file, module)
    for file, (_, _, modules) in PAGES.items()
    for module, names in modules.items()
    for name in names.split()
}
"""Page and module of each public name."""
MADE_BY_FACTORIES: Final = {"AsyncCache", "SyncCache"}
"""How they are constructed is nobody's business."""
LINK: Final = re.compile(r"\[(`[\w.]+`)\]\((\w+)\.md#([\w-]+)\)")
WIDTH: Final = 72  # characters of a signature in one line: more would scroll on a phone


def load() -> griffe.Module:
    """Return the package as griffe reads it."""
    found = griffe.load("asynccache", search_paths=[ROOT / "src"])
    assert isinstance(found, griffe.Module)
    return found


def write(folder: Path = FOLDER) -> None:
    """Write all pages."""
    package = load()
    texts = {}
    index = ["# Reference", "Every public name, as its docstring describes it."]
    for file, (title, about, _) in PAGES.items():
        parts = [f"# {title}", about]
        for name in (here := [name for name, (page, _) in HOMES.items() if page == file]):
            module = HOMES[name][1]
            parts += entry(package[f"{module}.{name}".partition(".")[2]], name, 2, module)
        texts[file] = "\n\n".join(filter(None, parts))
        links = (f"[`{name}`]({file}.md#{name})" for name in here)
        index += [f"## [{title}]({file}.md)", f"{', '.join(links)}."]
    texts["index"] = "\n\n".join(index)
    folder.mkdir(parents=True, exist_ok=True)
    anchors = set(re.findall(r"\{ #([\w-]+) \}", "\n".join(texts.values())))
    for file, text in texts.items():
        sound = LINK.sub(lambda found: found[0] if found[3] in anchors else found[1], text)
        (folder / f"{file}.md").write_text(f"{sound}\n", encoding="utf-8")


def entry(thing: Any, name: str, level: int, module: str = "") -> Iterator[str]:
    """Yield the parts of one class, function or constant, and of what is in it."""
    yield f"{'#' * level} {name} {{ #{anchor(name)} }}"
    if module:
        yield f"`from {module} import {name}`"
    if thing.is_function:
        yield from signature(thing, name)
    elif thing.is_class:
        init = thing.all_members.get("__init__")
        if init is not None and init.is_function and name not in MADE_BY_FACTORIES:
            yield from signature(init, name)
    elif thing.value is not None:
        yield f"```python\n{name} = {thing.value}\n```"
    if thing.docstring is not None:
        yield from sections(thing.docstring)
    if thing.is_class:
        yield from members_of(thing, name, level + 1)


def members_of(thing: Any, name: str, level: int) -> Iterator[str]:
    """Yield what is in a class: its attributes as a list, and its methods."""
    members = [member for member in thing.all_members.values() if is_shown(member)]
    if fields := [field(member, name) for member in members if member.is_attribute]:
        yield "**Attributes**"
        yield "\n".join(fields)
    for member in members:
        if member.is_function:
            yield from entry(member, f"{name}.{member.name}", level)


def is_shown(member: Any) -> bool:
    """Tell whether a member is for users: it has a docstring of its own, or is a field."""
    if member.name.startswith(("_", "test_")) or not (member.is_function or member.is_attribute):
        return False
    if member.docstring is None:
        return bool(member.is_attribute and member.annotation and str(member.annotation) != "Final")
    return not member.docstring.value.startswith("For integrations")


def signature(function: Any, name: str) -> Iterator[str]:
    """Yield a signature in a block of code, one argument a line where it is long."""
    parts: list[str] = []
    for one in function.parameters:
        if one.name in {"self", "cls", "bare"}:
            continue
        kind = one.kind.value
        if kind == "keyword-only" and "*" not in parts:
            parts.append("*")
        text = {"variadic positional": "*", "variadic keyword": "**"}.get(kind, "") + one.name
        text += f": {one.annotation}" if one.annotation is not None else ""
        if one.default is not None and "variadic" not in kind:
            text += f" = {told(str(one.default), function)}"
        parts.append(text.replace(" | UnsetType", "").replace("= UNSET", "= ..."))
    start = f"{'async ' if 'async' in function.labels else ''}{name}("
    end = f") -> {function.returns}" if function.name != "__init__" else ")"
    line = start + ", ".join(parts) + end
    if len(line) > WIDTH:
        line = "\n".join([start, *(f"    {part}," for part in parts), end])
    yield f"```python\n{line}\n```"


def told(default: str, function: Any) -> str:
    """Return a default with the values of private constants in place of their names."""
    known = function.module.members
    return re.sub(r"\b_[A-Z_]+\b", lambda m: str(getattr(known.get(m[0]), "value", m[0])), default)


def sections(docstring: griffe.Docstring) -> Iterator[str]:
    """Yield the parts of a docstring as Markdown."""
    for section in docstring.parse(
        "google", warnings=False, returns_multiple_items=False, returns_named_value=False
    ):
        kind, value = section.kind.value, section.value
        if kind == "text":
            yield prose(value)
        elif kind == "examples":
            yield "**Example**"
            for part, text in value:
                yield prose(text) if part.value == "text" else f"```pycon\n{text}\n```"
        elif kind == "admonition":
            yield f"**{value.annotation.capitalize()}**"
            yield f"```pycon\n{value.contents}\n```"
        else:
            yield f"**{'Arguments' if kind == 'parameters' else kind.capitalize()}**"
            yield "\n".join(item(kind, one) for one in value if getattr(one, "name", "") != "bare")


def item(kind: str, one: Any) -> str:
    """Return an argument, an exception or a result as an item of a list."""
    label = one.annotation if kind == "raises" else getattr(one, "name", "")
    text = prose(one.description).replace("\n", "\n  ")
    return f"- **`{label}`**: {text}" if label else f"- {text}"


def field(attribute: Any, of: str) -> str:
    """Return an attribute as an item of a list."""
    label = f"- **`{attribute.name}`**{{ #{anchor(f'{of}.{attribute.name}')} }}"
    typed = f" (`{attribute.annotation}`)" if attribute.annotation is not None else ""
    text = prose(attribute.docstring.value) if attribute.docstring is not None else ""
    return label + typed + (": " + text.replace("\n", "\n  ") if text else "")


def prose(text: str) -> str:
    """Return a docstring's words, its code in a block, with links to names that are on a page."""
    text, _, code = textwrap.dedent(text).strip().partition("::\n\n    ")
    text = re.sub(r"(?<!`)`([\w.]+)`(?!`)", linked, text)
    return f"{text}:\n\n```python\n{textwrap.dedent('    ' + code)}\n```" if code else text


def linked(found: re.Match[str]) -> str:
    """Return a name with a link to where it is described, if it is."""
    name = re.sub(r"^asynccache\.([a-z]+\.)*(?=\w+)", "", found[1])
    first = name.partition(".")[0]
    return f"[`{found[1]}`]({HOMES[first][0]}.md#{anchor(name)})" if first in HOMES else found[0]


def anchor(name: str) -> str:
    """Return the anchor of a name on its page."""
    return name.replace(".", "-")


if __name__ == "__main__":
    write()
