"""Fixtures of the wrapper's tests: an empty folder, and answers that tell one call from another."""

from __future__ import annotations

import itertools

import pytest

from tests.helpers.openai_server import completion
from tests.helpers.wrapper import entry_of

pytest_plugins = ("tests.helpers.openai_fixtures",)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Work in an empty folder, where the implicit cache goes."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def numbered(api):
    """Let the server number its answers: same number, same call."""
    numbers = itertools.count(1)

    async def program(seen):
        await seen.answer(completion(id=f"chatcmpl-{next(numbers)}", model=seen.body["model"]))

    api.program = program
    return api


@pytest.fixture
def entry(api):
    """The words of a `config_list` that lead to the server."""
    return entry_of(api)
