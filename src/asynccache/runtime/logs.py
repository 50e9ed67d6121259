"""How failures are told in the log: a line each, the traceback only to those who look closer."""

from __future__ import annotations

import logging

_log = logging.getLogger("asynccache")


def warn_of(error: BaseException, message: str, *args: object) -> None:
    """Log one line about an error, and its traceback at DEBUG."""
    line = message % args if args else message
    _log.warning("%s", " ".join(line.split()))
    _log.debug("the traceback of the last warning", exc_info=error)
