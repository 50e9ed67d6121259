"""A recorded stream of 200 events from disk, as the SDK's typed stream, against the SDK itself.

Ours: `create(stream=True)` through the wrapped client, read to its end, every event typed. The
SDK's: the same call on the bare client, over a transport that hands over the same bytes from
memory, without socket or server: in one piece, which is the fastest for it, and event by event, as
a server sends them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from _harness import Report, in_turn, repeated, run
from _upstream import MODEL, in_memory_client, messages, stream_events

from asynccache import Cache

EVENTS, ROUNDS, STREAMS = 200, 20, 20


async def main(report: Report) -> None:
    events = stream_events(EVENTS)
    assert len(events) == EVENTS + 1  # and the closing one
    whole = b"".join(events)
    one_piece = in_memory_client(lambda: [whole], "text/event-stream")
    by_event = in_memory_client(lambda: events, "text/event-stream")
    with tempfile.TemporaryDirectory() as folder:
        async with (
            Cache.disk(cache_path_root=Path(folder) / "ours") as disk,
            Cache.memory() as memory,
        ):

            def reader(client: Any) -> Any:
                async def read() -> list[Any]:
                    stream = await client.chat.completions.create(
                        model=MODEL, messages=messages(), stream=True
                    )
                    return [event async for event in stream]

                return read

            read_disk, read_memory = (
                reader(disk.wrap(one_piece)), reader(memory.wrap(one_piece)),
            )  # fmt: skip
            bare = await reader(one_piece)()
            for read in (read_disk, read_memory, read_disk, read_memory):
                replayed = await read()
                assert [e.model_dump() for e in replayed] == [e.model_dump() for e in bare]
            times = await in_turn(
                {
                    "disk": repeated(read_disk, STREAMS),
                    "memory": repeated(read_memory, STREAMS),
                    "SDK, in one piece": repeated(reader(one_piece), 2),
                    "SDK, event by event": repeated(reader(by_event), 2),
                },
                3 if report.small else ROUNDS,
            )
            assert disk.stats().upstream_calls == memory.stats().upstream_calls == 1
    what = f"recorded stream of {EVENTS} events"
    report.versus(f"{what} from disk", times, "disk", "SDK, in one piece", target=0.1, unit="ms")
    report.versus(f"{what} from disk", times, "disk", "SDK, event by event", unit="ms")
    report.versus(f"{what} from memory", times, "memory", "SDK, in one piece", unit="ms")
    report.fact("bytes of the stream", len(whole))


if __name__ == "__main__":
    run(main, __doc__, "openai", "pydantic")
