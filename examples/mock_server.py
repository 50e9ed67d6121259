"""The HTTP server that the demo's swarm asks: llmock, in a process (and so a loop) of its own.

Prints its address, serves until its standard input is closed, then prints how many calls it got.
"""

from __future__ import annotations

import sys

from llmock.chaos import ChaosSettings, StreamChaos
from llmock.simulation import MockResponseSettings
from llmock.testing import LLMockServer

LATENCY_MS = 400  # before an answer begins, as a fast model takes
EVENT_MS = 25  # between two events of a streamed answer
WAIT = 2.0  # seconds for calls that are being served when the count is asked for


def main() -> None:
    server = LLMockServer(
        chaos=ChaosSettings(latency_ms=LATENCY_MS),
        responses=MockResponseSettings(response_style="varied"),
    )
    server.state.stream_chaos = StreamChaos(chunk_delay_ms=EVENT_MS)
    with server:
        print(server.base_url("openai"), flush=True)
        sys.stdin.read()
        print(len(server.state.journal.records(wait=WAIT)), flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
