"""Which version of the SDK this folder can work with: looked at before anything else of it."""

from __future__ import annotations

import re
from typing import Final

from asynccache.errors import from_extra

with from_extra("openai"):
    import openai

OLDEST: Final = (2, 17)  # as the extra `openai` says


def check(version: str = openai.__version__) -> None:
    """Refuse an SDK that is too old.

    Raises:
        ImportError: It is.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is not None and (int(found[1]), int(found[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise ImportError(
            f"asynccache needs openai>={oldest}, found {version}: install asynccache[openai]"
        )
