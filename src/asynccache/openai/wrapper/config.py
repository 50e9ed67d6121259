"""The words of a wrapper's configuration: which are the client's, the call's, the wrapper's own."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, cast

from msgspec import UNSET, Meta, Struct, UnsetType, ValidationError, convert
from msgspec.structs import replace
from openai import AsyncAzureOpenAI, AsyncOpenAI
from openai.resources.chat.completions import AsyncCompletions as Chat
from openai.resources.completions import AsyncCompletions as Completions

from asynccache.cache.facade import AsyncCache, Options, asynchronous
from asynccache.keys.key import Namespace

_AZURE_WORDS: Final = frozenset({
    "api_version", "azure_ad_token", "azure_ad_token_provider", "azure_deployment",
    "azure_endpoint",
})  # fmt: skip
_CLIENT_WORDS: Final = _AZURE_WORDS | {
    "api_key", "base_url", "default_headers", "default_query", "http_client", "max_retries",
    "organization", "project", "timeout",
}  # fmt: skip
_CLIENT: Final = "client"
_WRAPPED: Final = "_asynccache_wrapped"  # what `wrap` notes on the clients that it makes
_OPENAI: Final = ("openai", "open_ai")
_UNSUPPORTED: Final = {
    "model_client_cls": f"pass a client of the SDK as {_CLIENT!r}",
    "api_rate_limit": "limit the rate in an http_client of your own",
}
_Amount = Annotated[float, Meta(ge=0)]

Filter = Callable[..., object]
"""Called with ``context=`` and ``response=``; says whether the answer is good."""
Price = tuple[float, float]
"""Of a thousand prompt tokens, and of a thousand completion tokens."""


class WrapperSettings(Struct, frozen=True, kw_only=True):
    """The wrapper's own words, as they hold for one entry or for one call of it."""

    cache: AsyncCache | None = None
    cache_seed: int | str | UnsetType | None = UNSET
    """None switches caching off."""
    cache_path_root: str = ".cache"
    filter_func: Filter | None = None
    price: Price | None = None
    context: Mapping[str, Any] | None = None
    allow_format_str_template: bool = False

    def __repr__(self) -> str:  # a context may hold anything
        return f"<WrapperSettings cache={self.cache!r} cache_seed={self.cache_seed!r}>"

    def with_words(self, words: Mapping[str, Any]) -> WrapperSettings:
        """Return settings in which the words of a narrower level win over these.

        On one level a cache wins over a seed, as in AutoGen. A word that is None says nothing,
        except for a seed (no caching) and a filter (none).

        Raises:
            TypeError: A word has a value of the wrong type.
            ValueError: A word has no such value.
        """
        changes: dict[str, Any] = {}
        for name, value in words.items():
            if name in _CHECKS and (value is not None or name in _NONE_SAYS):
                changes[name] = _CHECKS[name](value)
        if "cache" in changes:
            changes["cache_seed"] = UNSET
        elif changes.get("cache_seed", UNSET) is None:
            changes["cache"] = None
        return replace(self, **changes) if changes else self

    def inside(self, options: Options) -> WrapperSettings:
        """Return settings over which the options of the block around the call have won."""
        unchanged = options.cache is UNSET and options.cache_seed is UNSET
        if unchanged or self.cache_seed is None:
            return self
        cache = self.cache if options.cache is UNSET else None
        seed = self.cache_seed if options.cache_seed is UNSET else UNSET
        return replace(self, cache=cache, cache_seed=seed)


class ConfigEntry(Struct, frozen=True, kw_only=True):
    """One entry of a ``config_list``, taken apart once."""

    settings: WrapperSettings
    create: dict[str, Any]
    """Parameters of every call."""
    make_client: Callable[[], AsyncOpenAI]
    """Returns the client that was handed in, or a new one; raises what the SDK does."""
    owns_client: bool
    """Whether the client that is returned is the wrapper's to close."""
    azure: bool

    def __repr__(self) -> str:  # a client's words hold its key
        return f"<ConfigEntry {self.settings!r}>"


def entries_of(config_list: object, base: Mapping[str, Any]) -> list[ConfigEntry]:
    """Return what each entry says, or the one entry that the constructor's words make.

    Raises:
        TypeError: ``config_list`` is no list of mappings, a word isn't known, or has a value of the
            wrong type.
        ValueError: The list is empty, or a word has no such value.
    """
    if config_list is None:
        return [_entry("OpenAIWrapper()", base, {})]
    if not isinstance(config_list, list | tuple):
        raise TypeError(f"config_list must be a list of dicts, not {_kind(config_list)}")
    given = cast("list[object]", config_list)
    if not given:
        raise ValueError("config_list is empty: leave it out, or put an entry into it")
    entries: list[ConfigEntry] = []
    for number, words in enumerate(given):
        where = f"config_list[{number}]"
        if not isinstance(words, Mapping):
            raise TypeError(f"{where} must be a dict, not {_kind(words)}")
        entries.append(_entry(where, base, cast("Mapping[str, Any]", words)))
    return entries


def _entry(where: str, base: Mapping[str, Any], own: Mapping[str, Any]) -> ConfigEntry:
    words = {**base, **own}
    client_words = _known_client_words(words, where)
    api_type = words.get("api_type") or _OPENAI[0]
    azure = str(api_type).startswith("azure")
    if not azure and api_type not in _OPENAI:
        raise ValueError(
            f'{where}: api_type must be "openai" or "azure", not {api_type!r}; for a server that'
            f" speaks like OpenAI's set base_url, or pass a client of the SDK as {_CLIENT!r}"
        )
    own_words = own.keys() & client_words
    if not azure and (wrong := own_words & _AZURE_WORDS):
        raise ValueError(f'{where}: {", ".join(sorted(wrong))} needs api_type="azure"')
    # An entry that says anything of its client doesn't mean the constructor's.
    client = _client((own if own_words or _CLIENT in own else base).get(_CLIENT), where)
    if client is not None and (wrong := own_words - {"timeout"}):
        names = ", ".join(sorted(wrong))
        raise ValueError(f"{where}: {names} belongs to a client, and there is one: set it there")
    others = client_words | OWN_WORDS | {_CLIENT}
    create = {name: value for name, value in words.items() if name not in others}
    if client is not None and "timeout" in words:
        create["timeout"] = words["timeout"]
    taken = client_words if azure else client_words - _AZURE_WORDS
    made_of = {name: value for name, value in words.items() if name in taken}
    if azure and client is None:
        made_of = _azure_words(made_of, create.get("model"), where)

    def make_client() -> AsyncOpenAI:
        if client is not None:
            return client
        return (AsyncAzureOpenAI if azure else AsyncOpenAI)(**made_of)

    return ConfigEntry(
        settings=WrapperSettings().with_words(base).with_words(own),
        create=create,
        make_client=make_client,
        owns_client=client is None and made_of.get("http_client") is None,
        azure=azure,
    )


def undotted(model: str) -> str:
    """Return a model's name as Azure's deployments spell it (AutoGen's convenience)."""
    return model.replace(".", "")


def _azure_words(words: dict[str, Any], model: object, where: str) -> dict[str, Any]:
    base_url = words.pop("base_url", None)
    words["azure_endpoint"] = words.get("azure_endpoint") or base_url
    if isinstance(model, str):
        words["azure_deployment"] = words.get("azure_deployment") or undotted(model)
    if words.get("azure_ad_token_provider") == "DEFAULT":
        raise ValueError(
            f"{where}: azure_ad_token_provider must be a function, e.g."
            " azure.identity.aio.get_bearer_token_provider(DefaultAzureCredential(), scope)"
        )
    return words


def _known_client_words(words: Mapping[str, Any], where: str) -> frozenset[str]:
    """Return the words that make a client: those known here, and those of this SDK.

    Raises:
        TypeError: Neither a client, nor a call, nor the wrapper takes one of ``words``.
    """
    for name, instead in _UNSUPPORTED.items():
        if name in words:
            raise TypeError(f"{where}: {name} isn't supported: {instead}")
    of_clients, all_of_clients = _parameters(AsyncOpenAI.__init__, AsyncAzureOpenAI.__init__)
    of_calls, all_of_calls = _parameters(Chat.create, Completions.create)
    known = {*of_clients, *of_calls, *OWN_WORDS, _CLIENT}
    unknown = min(words.keys() - known, default=None)
    if unknown is not None and all_of_clients and all_of_calls:
        hint = "put what the SDK doesn't know into extra_body"
        for near in difflib.get_close_matches(unknown, known, n=1):
            hint = f"did you mean {near!r}?"
        raise TypeError(f"{where}: no client and no call takes {unknown!r}; {hint}")
    return _CLIENT_WORDS | of_clients


def _parameters(*methods: Callable[..., Any]) -> tuple[frozenset[str], bool]:
    """Return the names that methods take, and whether none is patched so that it hides its own."""
    parameters = [
        parameter
        for method in methods
        for parameter in list(inspect.signature(method).parameters.values())[1:]
    ]
    known = all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters)
    return frozenset(parameter.name for parameter in parameters) if known else frozenset(), known


# -- values ------------------------------------------------------------------------------------


def _kind(value: object) -> str:
    return type(value).__qualname__


def _client(client: object, where: str) -> AsyncOpenAI | None:
    if client is None:
        return None
    if not isinstance(client, AsyncOpenAI):
        raise TypeError(f"{where}: {_CLIENT} must be an openai.AsyncOpenAI, not {_kind(client)}")
    if getattr(client, _WRAPPED, False):
        raise ValueError(f"{where}: pass the client unwrapped, and its cache as cache=")
    return client


def _seed(seed: Any) -> int | str | None:
    if seed is not None:
        Namespace.of(seed)
    return cast("int | str | None", seed)


def _filter(function: object) -> Filter | None:
    if function is not None and (not callable(function) or inspect.iscoroutinefunction(function)):
        raise TypeError("filter_func must be a plain function of context= and response=")
    return function


def _price(price: object) -> Price:
    pair = (price, price) if isinstance(price, int | float) else price
    try:
        return convert(pair, tuple[_Amount, _Amount])
    except ValidationError:
        raise ValueError(
            "price must be [per_1k_prompt, per_1k_completion], two numbers from 0 on, or one for"
            f" both, not {price!r}"
        ) from None


_NONE_SAYS: Final = frozenset({"cache_seed", "filter_func"})
# The words that make a difference, and what checks their values.
_CHECKS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "cache": asynchronous,
    "cache_seed": _seed,
    "cache_path_root": os.fspath,
    "filter_func": _filter,
    "price": _price,
    "context": lambda context: context,
    "allow_format_str_template": bool,
}
OWN_WORDS: Final = {"agent", "api_type", "api_version", "tags", *_CHECKS}
"""The wrapper's own words: never sent, never in a key. AutoGen's, and ``cache_path_root``."""
