"""Tokens become text piece by piece: whole characters, and no part of a stop string."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.serve.engine.text import Detokenizer, StopScanner, TextStream


def decode_bytes(tokens: Sequence[int]) -> str:
    """A byte-level tokenizer: a token is a byte, and broken characters become U+FFFD."""
    return bytes(tokens).decode("utf-8", errors="replace")


def decode_words(tokens: Sequence[int]) -> str:
    """Like SentencePiece: every word brings its space, and a text loses its first one."""
    words = ["▁Hello", "▁world", "!", "▁again", ""]
    return "".join(words[token] for token in tokens).replace("▁", " ").removeprefix(" ")


@given(st.text(max_size=40))
def test_pieces_of_any_text_join_to_it_and_hold_only_whole_characters(text: str) -> None:
    detokenizer = Detokenizer(decode_bytes)
    pieces = [detokenizer.push(byte) for byte in text.encode()]
    assert "".join(pieces) + detokenizer.flush() == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@given(st.binary(max_size=40))
def test_pieces_of_broken_bytes_join_to_what_decoding_at_once_gives(data: bytes) -> None:
    detokenizer = Detokenizer(decode_bytes)
    joined = "".join(detokenizer.push(byte) for byte in data) + detokenizer.flush()
    assert joined == decode_bytes(data)


def test_the_space_between_words_is_kept_and_the_first_one_is_not() -> None:
    detokenizer = Detokenizer(decode_words)
    assert [detokenizer.push(token) for token in (0, 1, 4, 2, 3)] == [
        "Hello",
        " world",
        "",
        "!",
        " again",
    ]


def test_a_stop_string_spread_over_pieces_never_leaks() -> None:
    scanner = StopScanner(["END"])
    assert [scanner.push(piece) for piece in ("abE", "N", "Dxyz")] == ["ab", "", ""]
    assert scanner.stopped


def test_what_only_began_like_a_stop_string_is_released() -> None:
    scanner = StopScanner(["END"])
    assert [scanner.push(piece) for piece in ("abE", "N", "E")] == ["ab", "", "EN"]
    assert scanner.flush() == "E"
    assert not scanner.stopped


def test_the_earliest_of_several_stops_counts() -> None:
    scanner = StopScanner(["later", "b"])
    assert scanner.push("abclater") == "a"


@given(
    text=st.text(alphabet="ab", max_size=30),
    stops=st.lists(st.text(alphabet="ab", min_size=1, max_size=4), min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 30), max_size=6),
)
def test_any_cutting_gives_the_text_before_the_first_stop(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    """However the text arrives, the output is what stands before the stop that is complete first.

    A stop that ends earlier wins over one that begins earlier but is complete later, because its
    text is already gone by then.
    """
    scanner, output = StopScanner(stops), ""
    edges = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    for start, end in zip(edges, edges[1:], strict=False):
        if scanner.stopped:
            break
        output += scanner.push(text[start:end])
    if not scanner.stopped:
        output += scanner.flush()
        assert output == text
        assert not any(stop in text for stop in stops)
    else:
        assert text.startswith(output)
        assert any(text[len(output) :].startswith(stop) for stop in stops)
        assert not any(stop in output for stop in stops)


@pytest.mark.parametrize(("stops", "released"), [((), 5), (("lo",), 3)])
def test_a_stream_counts_what_it_released(stops: tuple[str, ...], released: int) -> None:
    stream = TextStream(decode_bytes, stops)
    text = "".join(stream.push(byte) for byte in b"hello") + stream.close()
    assert stream.released == released == len(text)
    assert stream.seen == 5
    assert stream.stopped == bool(stops)


def test_a_stop_string_completed_by_the_very_last_bytes_still_stops() -> None:
    stream = TextStream(decode_bytes, ("\ufffd",))
    assert stream.push(0xE2) == ""
    assert stream.close() == ""
    assert stream.stopped
