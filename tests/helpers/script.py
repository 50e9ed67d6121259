"""Runs a program in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def run_script(source, *words):
    """Run a program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(source), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
