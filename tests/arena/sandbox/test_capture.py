"""What is kept of a stream is its beginning and its end, whatever the pieces that it comes in."""

import os

from hypothesis import given
from hypothesis import strategies as st

from arena.sandbox._capture import Kept


@given(pieces=st.lists(st.binary(min_size=1, max_size=40), max_size=12), most=st.integers(0, 120))
def test_the_beginning_and_the_end_are_kept(pieces: list[bytes], most: int) -> None:
    read, write = os.pipe()
    kept = Kept(read, most)
    try:
        for piece in pieces:
            os.write(write, piece)
            assert kept.read()
            assert not kept.read()
    finally:
        os.close(write)
    assert not kept.read()
    assert not kept.is_open
    whole = b"".join(pieces)
    head = (most + 1) // 2
    expected = whole if len(whole) <= most else whole[:head] + whole[len(whole) - (most - head) :]
    assert kept.take() == (expected, max(0, len(whole) - most))
    assert kept.take() == (b"", 0)
