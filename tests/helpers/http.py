"""The HTTP library that the SDK stands on: httpx2 under its 3.x, httpx under its 2.x."""

from __future__ import annotations

import importlib
from typing import Any

import openai

_client = next(k for k in openai.DefaultAsyncHttpxClient.__mro__ if k.__name__ == "AsyncClient")
httpx: Any = importlib.import_module(_client.__module__.partition(".")[0])
