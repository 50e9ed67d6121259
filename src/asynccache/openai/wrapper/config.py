"""What `OpenAIWrapper` is told: which words are the client's, which the call's, which its own."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace
from openai import AsyncAzureOpenAI, AsyncOpenAI
from openai.resources.chat.completions import AsyncCompletions as Chat
from openai.resources.completions import AsyncCompletions as Completions

from asynccache.cache.cache import AsyncCache, SyncCache
from asynccache.keys.key import Namespace

EXTRAS: Final = frozenset({
    "agent", "allow_format_str_template", "api_type", "api_version", "cache", "cache_path_root",
    "cache_seed", "context", "filter_func", "price", "tags",
})  # fmt: skip
"""Words of the wrapper's own: never sent, never in a key. AutoGen's, and ``cache_path_root``."""
UNUSED: Final = frozenset({"agent", "api_type", "api_version", "tags"})
"""Those of them that make no difference to a call."""
NONE_SAYS: Final = frozenset({"cache_seed", "filter_func"})
"""Those of which None is a value: no caching, no filter."""
_AZURE_WORDS: Final = frozenset({
    "api_version", "azure_ad_token", "azure_ad_token_provider", "azure_deployment",
    "azure_endpoint",
})  # fmt: skip
_OPENAI_WORDS: Final = frozenset({
    "api_key", "base_url", "default_headers", "default_query", "http_client", "max_retries",
    "organization", "project", "timeout",
})  # fmt: skip
_CLIENT: Final = "client"
_WRAPPED: Final = "_asynccache_wrapped"  # what `wrap` notes on the clients that it makes
_OPENAI: Final = ("openai", "open_ai")
_UNSUPPORTED: Final = {
    "model_client_cls": f"pass a client of the SDK as {_CLIENT!r}",
    "api_rate_limit": "limit the rate in an http_client of your own",
}
_PRICES: Final = 2  # of a thousand prompt tokens, and of a thousand completion tokens

Filter = Callable[..., object]
"""Called with ``context=`` and ``response=``; says whether the answer is good."""


class WrapperSettings(Struct, frozen=True, kw_only=True):
    """The wrapper's own words, as they hold for one entry or for one call of it."""

    cache: AsyncCache | None = None
    cache_seed: int | str | UnsetType | None = UNSET
    """None switches caching off."""
    cache_of_call: bool = False
    """Whether the call itself named the cache, and so outdoes the block around it."""
    seed_of_call: bool = False
    """Whether the call itself named the seed, and so outdoes the block around it."""
    cache_path_root: str = ".cache"
    filter_func: Filter | None = None
    price: tuple[float, float] | None = None
    context: Mapping[str, Any] | None = None
    allow_format_str_template: bool = False

    def __repr__(self) -> str:  # a context may hold anything
        return f"<WrapperSettings cache={self.cache!r} cache_seed={self.cache_seed!r}>"

    def under(self, words: Mapping[str, Any], *, of_call: bool = False) -> WrapperSettings:
        """Return settings in which a narrower level's words win over these.

        On one level a cache wins over a seed, as in AutoGen.

        Raises:
            TypeError: A word has a value of the wrong type.
            ValueError: A word has no such value.
        """
        changes: dict[str, Any] = {}
        if words.get("cache") is not None:
            changes.update(cache=_cache(words["cache"]), cache_of_call=of_call, cache_seed=UNSET)
        elif "cache_seed" in words:
            seed = words["cache_seed"]
            if seed is not None:
                Namespace.of(seed)
            changes.update(cache_seed=seed, seed_of_call=of_call)
            if seed is None:
                changes["cache"] = None
        if words.get("cache_path_root") is not None:
            changes["cache_path_root"] = os.fspath(words["cache_path_root"])
        if words.get("price") is not None:
            changes["price"] = _price(words["price"])
        if "filter_func" in words:
            changes["filter_func"] = _filter(words["filter_func"])
        if words.get("context") is not None:
            changes["context"] = words["context"]
        if "allow_format_str_template" in words:
            changes["allow_format_str_template"] = bool(words["allow_format_str_template"])
        return replace(self, **changes) if changes else self


class ConfigEntry(Struct, frozen=True, kw_only=True):
    """One entry of a ``config_list``, taken apart once."""

    number: int
    where: str
    """What to call it in messages."""
    settings: WrapperSettings
    create: dict[str, Any]
    """Parameters of every call."""
    client: AsyncOpenAI | None
    """One that was handed in, and is its owner's to close."""
    client_words: dict[str, Any]
    azure: bool

    def __repr__(self) -> str:  # a client's words hold its key
        return f"<ConfigEntry {self.where}>"

    def make_client(self) -> AsyncOpenAI:
        """Return the client that was handed in, or a new one.

        Raises:
            openai.OpenAIError: Something is missing, such as a key.
        """
        if self.client is not None:
            return self.client
        return (AsyncAzureOpenAI if self.azure else AsyncOpenAI)(**self.client_words)

    @property
    def owned(self) -> bool:
        """Whether what `make_client` returns is for the wrapper to close."""
        return self.client is None and self.client_words.get("http_client") is None


def plans_of(config_list: object, base: Mapping[str, Any]) -> list[ConfigEntry]:
    """Return a plan for each entry, or the one plan that the constructor's words make.

    Raises:
        TypeError: ``config_list`` is no list of mappings, a word isn't known, or has a value of the
            wrong type.
        ValueError: The list is empty, or a word has no such value.
    """
    if config_list is None:
        return [_plan(0, base, {})]
    if not isinstance(config_list, list | tuple):
        raise TypeError(f"config_list must be a list of dicts, not {_kind(config_list)}")
    entries = cast("list[object]", config_list)
    if not entries:
        raise ValueError("config_list is empty: leave it out, or put an entry into it")
    plans: list[ConfigEntry] = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            raise TypeError(f"config_list[{number}] must be a dict, not {_kind(entry)}")
        plans.append(_plan(number, base, cast("Mapping[str, Any]", entry)))
    return plans


def _plan(number: int, base: Mapping[str, Any], entry: Mapping[str, Any]) -> ConfigEntry:
    where = f"config_list[{number}]" if entry else "OpenAIWrapper()"
    for words in (base, entry):
        _check(words, where)
    api_type = {**base, **entry}.get("api_type") or _OPENAI[0]
    azure = str(api_type).startswith("azure")
    if not azure and api_type not in _OPENAI:
        raise ValueError(
            f'{where}: api_type must be "openai" or "azure", not {api_type!r}; for a server that'
            f" speaks like OpenAI's set base_url, or pass a client of the SDK as {_CLIENT!r}"
        )
    sdk = _client_words()
    own = {name: value for name, value in entry.items() if name in sdk}
    wrong = own.keys() & _AZURE_WORDS
    if wrong and not azure:
        raise ValueError(f'{where}: {", ".join(sorted(wrong))} needs api_type="azure"')
    # An entry that says anything of its client doesn't mean the constructor's.
    client = _client(entry.get(_CLIENT) if own or _CLIENT in entry else base.get(_CLIENT), where)
    if client is not None and own.keys() - {"timeout"}:
        names = ", ".join(sorted(own.keys() - {"timeout"}))
        raise ValueError(f"{where}: {names} belongs to a client, and there is one: set it there")
    shared = {name: value for name, value in base.items() if name in sdk}
    if not azure:
        shared = {name: value for name, value in shared.items() if name not in _AZURE_WORDS}
    create = {
        name: value
        for name, value in {**base, **entry}.items()
        if name not in sdk and name not in EXTRAS and name != _CLIENT
    }
    client_words = {**shared, **own}
    if client is not None and "timeout" in client_words:
        create["timeout"] = client_words["timeout"]
    if azure and client is None:
        client_words = _for_azure(client_words, create.get("model"), where)
    if azure and isinstance(create.get("model"), str):
        create["model"] = undotted(create["model"])
    return ConfigEntry(
        number=number,
        where=where,
        settings=WrapperSettings().under(base).under(entry),
        create=create,
        client=client,
        client_words=client_words,
        azure=azure,
    )


def undotted(model: str) -> str:
    """Return a model's name as Azure's deployments spell it (AutoGen's convenience)."""
    return model.replace(".", "")


def _for_azure(words: dict[str, Any], model: object, where: str) -> dict[str, Any]:
    words = dict(words)
    base_url = words.pop("base_url", None)
    if words.get("azure_endpoint") is None and base_url is not None:
        words["azure_endpoint"] = base_url
    if words.get("azure_deployment") is None and isinstance(model, str):
        words["azure_deployment"] = undotted(model)
    if words.get("azure_ad_token_provider") == "DEFAULT":
        raise ValueError(
            f"{where}: azure_ad_token_provider must be a function, e.g."
            " azure.identity.aio.get_bearer_token_provider(DefaultAzureCredential(), scope)"
        )
    return words


# -- words -------------------------------------------------------------------------------------


def _names_of(function: Callable[..., Any]) -> frozenset[str] | None:
    """Return what a method takes; None if somebody patched it, and nobody knows."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)


def _client_words() -> frozenset[str]:
    """Return what makes a client: what is known here, and what this SDK says beside."""
    words = _OPENAI_WORDS | _AZURE_WORDS
    for function in (AsyncOpenAI.__init__, AsyncAzureOpenAI.__init__):
        words |= _names_of(function) or frozenset()
    return words


def _check(words: Mapping[str, Any], where: str) -> None:
    for name, instead in _UNSUPPORTED.items():
        if name in words:
            raise TypeError(f"{where}: {name} isn't supported: {instead}")
    known = {*EXTRAS, _CLIENT}
    makers = (AsyncOpenAI.__init__, AsyncAzureOpenAI.__init__)
    for function in (*makers, Chat.create, Completions.create):
        names = _names_of(function)
        if names is None:
            return
        known |= names
    unknown = sorted(words.keys() - known)
    if unknown:
        raise TypeError(f"{where}: {_unknown(unknown[0], known)}")


def _unknown(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "put what the SDK doesn't know into extra_body"
    return f"no client and no call takes {name!r}; {hint}"


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


def _cache(cache: object) -> AsyncCache:
    if isinstance(cache, SyncCache):
        return cache.asynchronous
    if not isinstance(cache, AsyncCache):
        raise TypeError(
            f"cache must be what `async with Cache.disk() as cache:` gives, not {_kind(cache)}"
        )
    return cache


def _filter(function: object) -> Filter | None:
    if function is None:
        return None
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise TypeError("filter_func must be a plain function of context= and response=")
    return function


def _price(price: object) -> tuple[float, float]:
    pair = [price, price] if isinstance(price, int | float) else price
    if not isinstance(pair, list | tuple):
        raise TypeError(f"price must be [per_1k_prompt, per_1k_completion], not {_kind(price)}")
    numbers = cast("list[object]", pair)
    if len(numbers) != _PRICES or not all(
        isinstance(number, int | float) and number >= 0 for number in numbers
    ):
        raise ValueError(f"price must be two numbers from 0 on, not {price!r}")
    prompt, completion = cast("list[float]", numbers)
    return float(prompt), float(completion)
