"""Server-sent events cut and read as the SDK reads them, however the network cuts the bytes."""

from __future__ import annotations

import sys

import pytest
from hypothesis import example, given, strategies as st
from openai._streaming import SSEDecoder

from asynccache.providers.frames import EventReader, EventSplitter, LineReader, LineSplitter

LINES = st.sampled_from(
    [
        *(b"data: {}", b"data:x", b"data: two", b"data", b"data: [DONE]", b"data:  z"),
        *(b": comment", b":", b"event: ping", b"id: 7", b"id:", b"retry: 5", b"retry: x"),
        *(b"", b"", b"other: y", " data: \u00e9".encode()),
    ]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=12).map(
    lambda lines: b"".join(line + end for line, end in lines)
)


def by_sdk(stream):
    """Read a whole stream as the SDK does."""
    return [event.data.encode() for event in SSEDecoder().iter_bytes(iter([stream]))]


def cut(pieces):
    """Cut a stream that comes in pieces into events."""
    splitter = EventSplitter()
    return [event for piece in pieces for event in splitter.feed(piece)] + [splitter.rest()]


def by_us(pieces):
    """Read a stream that comes in pieces as we do."""
    reader = EventReader()
    return [data for event in cut(pieces) for data in reader.read(event)]


def drawn(stream, data):
    """Return pieces of a stream that begin and end anywhere, often in the middle of a line end."""
    within = [at + 1 for at, byte in enumerate(stream) if byte == ord("\r")]
    places = st.integers(0, len(stream)) | st.sampled_from(within or [0])
    cuts = sorted(data.draw(st.sets(places, max_size=8)))
    return [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


@given(STREAMS, st.data())
def test_any_split_of_the_bytes_gives_the_events_that_the_sdk_reads(stream, data):
    """Wherever pieces begin and end, the data read is that of the SDK's own decoder."""
    assert by_us(drawn(stream, data)) == by_sdk(stream)


@given(STREAMS)
@example(b"data: x\r\n\r\ndata: y\r\n\r\n")
@example(b"id: 1\ndata: x\r\n\r\ndata: y\n\n")
def test_byte_by_byte(stream):
    """Fed one byte at a time, as by the slowest network, the events are the same."""
    assert by_us([stream[at : at + 1] for at in range(len(stream))]) == by_sdk(stream)


@given(STREAMS, st.data())
def test_no_byte_is_changed(stream, data):
    """Whole events and the rest are the stream's own bytes, in order, wherever it was cut."""
    assert b"".join(cut(drawn(stream, data))) == stream


@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r\n"])
def test_an_event_is_given_out_with_its_last_byte(end):
    """No event waits for the next piece, whatever its line ends."""
    assert EventSplitter().feed(b"data: x" + end) == [b"data: x" + end]


@pytest.mark.parametrize(
    ("splitter", "end"),
    [(EventSplitter(), b"\n\n"), (LineSplitter(), b"\n")],
    ids=["events", "lines"],
)
def test_what_comes_in_many_pieces_is_joined_once(splitter, end):
    """A long event takes time as its bytes do, not as their square."""
    joins = []

    def profile(_frame, event, called):
        if event == "c_call" and called.__name__ == "join":
            joins.append(called)

    sys.setprofile(profile)
    try:
        found = [one for piece in [b"x"] * 1000 + [end] for one in splitter.feed(piece)]
    finally:
        sys.setprofile(None)
    assert found == [b"x" * 1000 + end]
    assert len(joins) <= 2


def test_a_line_end_cut_in_two_ends_one_line():
    """A CRLF cut apart is no further empty line, which after an id would be an event."""
    pieces = [b"id: 1\r\ndata: x\r\n\r", b"\ndata: y\r\n\r\n"]
    assert by_us(pieces) == [b"x", b"y"]
    # What is kept is read again, by the SDK as well: the event of the lone empty line is there.
    pieces = [b"id: 1\ndata: x\n\r", b"\n", b"\n", b"data: y\n\n"]
    assert by_us(pieces) == by_sdk(b"".join(cut(pieces))) == [b"x", b"", b"y"]


def test_an_event_without_its_empty_line_is_none():
    """What a cut stream leaves behind is not read as an event, as the SDK doesn't either."""
    for stream in (b"data: {}\n", b"data: {}", b"data: {}\ndata: {}\r"):
        assert by_us([stream]) == by_sdk(stream) == []


@pytest.mark.parametrize("event", [b"event: error\ndata: x\n\n", b"data: x\r\nevent:error\r\n\r\n"])
def test_an_event_named_error_is_told(event):
    """Whatever its data are: not all servers say it there."""
    reader = EventReader()
    reader.read(b"event: errors\ndata: error\n\nevent: x\nid: error\n\n")
    assert not reader.failed
    assert [*reader.read(event)] == [b"x"]
    assert reader.failed


# -- lines ----------------------------------------------------------------------------------------

JSON_LINES = st.lists(
    st.sampled_from([b'{"a": 1}', b"", b" ", b'{"b": "\xc3\xa9"}', b"x\r"]), max_size=8
).flatmap(lambda lines: st.sampled_from([b"\n".join(lines), b"\n".join([*lines, b""])]))


def lines_of(pieces):
    """Cut a stream that comes in pieces into lines, and what is left."""
    splitter = LineSplitter()
    return [line for piece in pieces for line in splitter.feed(piece)], splitter.rest()


@given(JSON_LINES, st.data())
def test_any_split_of_the_bytes_gives_the_same_lines(stream, data):
    """No byte is changed, and every line but the rest has its end."""
    lines, rest = lines_of(drawn(stream, data))
    assert (lines, rest) == lines_of([stream])
    assert b"".join([*lines, rest]) == stream
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    assert b"\n" not in rest


def test_blank_lines_carry_nothing():
    """They keep a connection alive."""
    reader = LineReader()
    assert [*reader.read(b"{}\n"), *reader.read(b" \r\n"), *reader.read(b"7")] == [b"{}\n", b"7"]
