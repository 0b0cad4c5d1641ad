import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.capture.importers import files
from flywheel.capture.importers.files import is_protobuf, read_rows
from flywheel.errors import ConfigError

ROWS: list[Any] = [{"a": 1}, {"b": 'quoted " brace } \\'}, {"c": [{"d": "ü\n"}]}]


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def values(path: Path) -> list[Any]:
    return [json.loads(row.raw) for row in read_rows(path)]


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(json.dumps(row) for row in ROWS) + "\n",
        "\n\n".join(json.dumps(row) for row in ROWS),
        "\ufeff" + "\r\n".join(json.dumps(row) for row in ROWS),
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "  \n" + json.dumps(ROWS),
        "\n".join(json.dumps(row, indent=2) for row in ROWS),
    ],
    ids=["lines", "blank lines", "bom and crlf", "array", "indented", "blanks first", "documents"],
)
@pytest.mark.parametrize("is_zipped", [False, True])
def test_every_way_of_laying_out_json_gives_its_rows(
    text: str, is_zipped: bool, tmp_path: Path
) -> None:
    data = text.encode()
    assert values(written(tmp_path / "log", gzip.compress(data) if is_zipped else data)) == ROWS


@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=5),
            st.text('"\\{}[],x\n é', max_size=8) | st.lists(st.dictionaries(st.text(), st.none())),
            max_size=3,
        ),
        max_size=5,
    ),
    st.integers(1, 9),
)
def test_an_array_is_split_wherever_a_chunk_ends(rows: list[Any], chunk: int) -> None:
    file = io.BytesIO(json.dumps(rows, indent=1).encode())
    before, files.CHUNK = files.CHUNK, chunk
    try:
        start = file.read(1)
        found = [json.loads(row.raw) for row in files._values(file, file, start)]
    finally:
        files.CHUNK = before
    assert found == rows


@pytest.mark.parametrize("as_array", [False, True])
def test_a_row_over_the_limit_is_cut_and_the_next_is_whole(
    as_array: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_ROW", 1000)
    monkeypatch.setattr(files, "KEPT_OF_TOO_LONG", 100)
    monkeypatch.setattr(files, "CHUNK", 300)
    rows = [{"a": 1}, {"b": "x" * 5000}, {"c": 3}]
    text = json.dumps(rows) if as_array else "\n".join(json.dumps(row) for row in rows)
    found = list(read_rows(written(tmp_path / "log.jsonl", text.encode())))
    assert [row.is_whole for row in found] == [True, False, True]
    assert len(found[1].raw) < 2000
    assert json.loads(found[2].raw) == {"c": 3}


def test_progress_is_in_bytes_of_the_file_as_it_lies_on_disk(tmp_path: Path) -> None:
    data = b"".join(json.dumps({"n": n, "x": "y" * 90}).encode() + b"\n" for n in range(5000))
    path = written(tmp_path / "log.gz", gzip.compress(data))
    positions = [row.position for row in read_rows(path)]
    assert positions == sorted(positions)
    assert positions[-1] <= path.stat().st_size < len(data)


def test_a_file_that_is_cut_off_says_so_after_its_whole_rows(tmp_path: Path) -> None:
    data = b"".join(json.dumps({"n": n}).encode() + b"\n" for n in range(50_000))
    path = written(tmp_path / "log.gz", gzip.compress(data)[:-200])
    seen = []
    with pytest.raises(ConfigError, match="not a whole gzip file"):
        for row in read_rows(path):
            seen.append(row)
    assert len(seen) > 10_000
    with pytest.raises(ConfigError, match="cannot be read"):
        list(read_rows(tmp_path))


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_what_is_no_object_in_an_array_is_a_row_of_its_own(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes to quarantine then, and does not vanish."""
    monkeypatch.setattr(files, "CHUNK", chunk)
    path = written(tmp_path / "a.json", b'[1, {"a": 1}, "x\\"{", {"b": 2}, 5]')
    found = [row.raw for row in read_rows(path)]
    assert [row for row in found if row.startswith(b"{")] == [b'{"a": 1}', b'{"b": 2}']
    assert len(found) == 5


def test_a_last_row_without_its_end_is_given_as_it_is(tmp_path: Path) -> None:
    [whole, torn] = read_rows(written(tmp_path / "a.json", b'[{"a": 1}, {"b": '))
    assert (whole.raw, torn.raw) == (b'{"a": 1}', b'{"b": ')


@pytest.mark.parametrize(
    ("data", "expected"), [(b"\x0a\x05", True), (b'{"a":1}', False), (b"", False), (b"[", False)]
)
def test_protobuf_is_told_by_its_first_byte(data: bytes, expected: bool, tmp_path: Path) -> None:
    assert is_protobuf(written(tmp_path / "spans", data)) == expected


@given(st.binary(max_size=80) | st.text('{}[]",:\\\n a1', max_size=60).map(str.encode))
def test_any_bytes_are_rows_and_never_an_error(data: bytes) -> None:
    if data[:2] != files.GZIP_MAGIC:
        file = io.BytesIO(data)
        for row in files._rows(file, file):
            assert row.raw.strip()
