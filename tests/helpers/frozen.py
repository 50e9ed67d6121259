"""Processes that are stopped in their tracks."""

from __future__ import annotations

import os
import signal


def freeze(process):
    """Stop a child process, and wait until it stands still: the signal takes its time."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
