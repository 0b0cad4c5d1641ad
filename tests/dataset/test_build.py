import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flywheel.dataset import build_snapshot, find_snapshot, list_snapshots, read_manifest
from flywheel.errors import DatasetError, NotEnoughLabelsError
from flywheel.label import Retraction, retract
from flywheel.lake import Lake
from flywheel.records import SnapshotRow, Verdict
from flywheel.testing import make_interaction
from flywheel.workload import Workload
from tests.dataset.make import asked, correction, fill, finish_night, said


def rows_of(lake: Lake) -> list[SnapshotRow]:
    return lake.fetch(SnapshotRow, "SELECT * FROM snapshot_rows ORDER BY kind, interaction_id")


def read(folder: Path, name: str) -> list[dict[str, str | None]]:
    rows: list[dict[str, str | None]] = pq.read_table(folder / name).to_pylist()
    return rows


def test_a_snapshot_is_files_a_card_a_manifest_and_rows_in_the_lake(
    lake: Lake, workload: Workload, tmp_path: Path
) -> None:
    """12 corrections, 4 a class; 8 differ from the 'routine' that was served."""
    fill(lake, range(12))
    snapshot = build_snapshot(lake, workload, folder=tmp_path / "snapshots")

    folder = Path(snapshot.path)
    assert folder == tmp_path / "snapshots" / snapshot.snapshot_id
    assert sorted(path.name for path in folder.iterdir()) == [
        "CARD.md",
        "dpo-train.parquet",
        "dpo-validation.parquet",
        "manifest.json",
        "sft-train.parquet",
        "sft-validation.parquet",
    ]
    counts = snapshot.counts
    assert counts["sft/train"] + counts["sft/validation"] == 12
    assert counts["dpo/train"] + counts["dpo/validation"] == 8
    assert counts["sft/validation"] >= 1
    assert (snapshot.labels, snapshot.new_labels) == (12, 12)
    assert snapshot.lake_versions.keys() == {"interactions", "assessments"}

    sft = read(folder, "sft-train.parquet")
    assert len(sft) == counts["sft/train"]
    assert json.loads(sft[0]["prompt"] or "")[0]["role"] == "user"
    dpo = read(folder, "dpo-train.parquet")
    assert {row["rejected"] for row in dpo} == {
        '[{"role":"assistant","content":"{\\"urgency\\": \\"routine\\"}"}]'
    }

    recorded = rows_of(lake)
    assert len(recorded) == 20
    assert {row.label_source for row in recorded} == {"expert"}
    assert list_snapshots(lake, "triage") == [snapshot]
    manifest = read_manifest(folder)
    assert manifest.snapshot == snapshot
    assert {name: entry.rows for name, entry in manifest.files.items()} == {
        f"{key.replace('/', '-')}.parquet": count for key, count in counts.items()
    }


def test_the_card_says_what_is_in_it_and_what_was_left_out(
    lake: Lake, workload: Workload, tmp_path: Path
) -> None:
    fill(lake, range(6))
    lake.append(
        [
            make_interaction(interaction_id="split"),
            make_interaction(interaction_id="h", messages=asked("my tongue is swelling")),
        ]
    )
    lake.append(
        [
            correction("split", "A", rater="dr-a"),
            correction("split", "B", rater="dr-b"),
            correction("h", "C", rater="dr-b"),
            correction("absent", "D", rater="dr-b"),
        ]
    )
    snapshot = build_snapshot(lake, workload, folder=tmp_path / "s")
    card = (Path(snapshot.path) / "CARD.md").read_text()
    for expected in (
        "6 labelled interactions, 6 of them new",
        "| expert | 6 |",
        "| dr-a (human) | 6 |",
        '| `{"urgency": "emergency"}` | 2 |',
        "| disagreement: raters disagree | 1 |",
        "| held_out: the user says what an item of the gate's suite says | 1 |",
        "| 0.90 | 6 |",
        "| assessments | ",
    ):
        assert expected in card
    assert "dr-b" not in card
    assert read_manifest(Path(snapshot.path)).dropped == {"disagreement": 1, "held_out": 1}


def test_building_again_finds_what_is_there_and_adds_nothing(
    lake: Lake, workload: Workload, tmp_path: Path
) -> None:
    fill(lake, range(12))
    first = build_snapshot(lake, workload, folder=tmp_path / "s")
    before = {path: path.stat().st_mtime_ns for path in Path(first.path).iterdir()}
    versions = lake.versions()
    assert build_snapshot(lake, workload, folder=tmp_path / "s") == first
    assert {path: path.stat().st_mtime_ns for path in Path(first.path).iterdir()} == before
    assert lake.versions() == versions


@pytest.mark.parametrize("damage", ["sft-train.parquet", "manifest.json", "all"])
def test_a_snapshot_whose_files_are_gone_or_torn_is_written_again(
    lake: Lake, workload: Workload, tmp_path: Path, damage: str
) -> None:
    fill(lake, range(12))
    first = build_snapshot(lake, workload, folder=tmp_path / "s")
    folder = Path(first.path)
    whole = (folder / "sft-train.parquet").read_bytes()
    for path in list(folder.iterdir()):
        if damage in (path.name, "all"):
            path.write_bytes(b"torn")
    assert build_snapshot(lake, workload, folder=tmp_path / "s") == first
    assert (folder / "sft-train.parquet").read_bytes() == whole
    assert read_manifest(folder).snapshot == first
    assert list_snapshots(lake, "triage") == [first]


def test_a_snapshot_can_be_built_into_another_folder_when_the_first_is_gone(
    lake: Lake, workload: Workload, tmp_path: Path
) -> None:
    fill(lake, range(12))
    first = build_snapshot(lake, workload, folder=tmp_path / "s")
    Path(first.path).rename(tmp_path / "lost")
    second = build_snapshot(lake, workload, folder=tmp_path / "elsewhere")
    assert second.snapshot_id == first.snapshot_id
    assert read_manifest(tmp_path / "elsewhere" / first.snapshot_id).snapshot == second


def test_one_more_label_is_another_snapshot(lake: Lake, workload: Workload, tmp_path: Path) -> None:
    fill(lake, range(12))
    first = build_snapshot(lake, workload, folder=tmp_path / "s")
    fill(lake, range(12, 13))
    second = build_snapshot(lake, workload, folder=tmp_path / "s")
    assert second.snapshot_id != first.snapshot_id
    assert (second.labels, second.new_labels) == (13, 13)
    assert len(list_snapshots(lake, "triage")) == 2


def test_with_too_few_new_labels_a_night_ends_and_says_how_many_there_are(
    lake: Lake, workload: Workload, tmp_path: Path
) -> None:
    fill(lake, range(1))
    with pytest.raises(NotEnoughLabelsError) as caught:
        build_snapshot(lake, workload, folder=tmp_path / "s")
    assert (caught.value.found, caught.value.needed) == (1, 2)
    assert not (tmp_path / "s").exists()
    assert rows_of(lake) == []


def test_without_any_labels_the_error_names_the_labels_there_are(
    lake: Lake, workload: Workload, tmp_path: Path
) -> None:
    with pytest.raises(NotEnoughLabelsError, match="0 new labels"):
        build_snapshot(lake, workload, folder=tmp_path / "s")
    lake.append([make_interaction(interaction_id="a")])
    lake.append([correction("a", "A", name="urgent")])
    with pytest.raises(NotEnoughLabelsError, match=r"No label is named 'urgency' .* but: urgent"):
        build_snapshot(lake, workload, folder=tmp_path / "s")


def test_labels_that_are_left_out_do_not_count_as_new(
    lake: Lake, workload: Workload, tmp_path: Path
) -> None:
    lake.append([make_interaction(interaction_id=name) for name in ("a", "b", "c")])
    lake.append([correction(name, "A") for name in ("a", "b", "c")])
    with pytest.raises(NotEnoughLabelsError, match="left out: duplicate_prompt 2"):
        build_snapshot(lake, workload, folder=tmp_path / "s")


def test_labels_that_all_give_one_answer_make_no_dataset(
    lake: Lake, workload: Workload, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        lake.append([make_interaction(interaction_id=name, messages=asked(f"Question {name}"))])
    lake.append([correction("a", '{"u": 1}'), correction("b", '{"u":1}')])
    lake.append([correction("c", '{"u": 1 }')])
    with pytest.raises(DatasetError, match=r"all 3 labels give one answer \(\{\"u\": 1\}\)"):
        build_snapshot(lake, workload, folder=tmp_path / "s")
    assert rows_of(lake) == []


def test_pairs_alone_need_an_answer_that_was_corrected(
    lake: Lake, workload: Workload, tmp_path: Path
) -> None:
    only_pairs = workload.model_copy(
        update={"dataset": workload.dataset.model_copy(update={"kinds": ("dpo",)})}
    )
    for name in ("a", "b"):
        lake.append(
            [
                make_interaction(
                    interaction_id=name, messages=asked(f"Question {name}"), response=said(name)
                )
            ]
        )
        lake.append([correction(name, name)])
    with pytest.raises(DatasetError, match="add sft to dataset.kinds"):
        build_snapshot(lake, only_pairs, folder=tmp_path / "s")


@pytest.mark.parametrize(
    ("verdict", "is_promoted", "is_finished"),
    [
        (None, False, False),
        ("FAIL", False, True),
        ("INCONCLUSIVE", False, True),
        ("PASS", False, False),
        ("PASS", True, True),
    ],
)
def test_labels_stop_being_new_when_a_night_has_finished_with_them(
    lake: Lake,
    workload: Workload,
    tmp_path: Path,
    verdict: Verdict | None,
    is_promoted: bool,
    is_finished: bool,
) -> None:
    fill(lake, range(12))
    snapshot = build_snapshot(lake, workload, folder=tmp_path / "s")
    finish_night(lake, snapshot.snapshot_id, verdict=verdict, is_promoted=is_promoted)
    if not is_finished:
        # The night broke off: running it again goes on with the same snapshot.
        assert build_snapshot(lake, workload, folder=tmp_path / "s") == snapshot
        return
    with pytest.raises(NotEnoughLabelsError, match="0 new labels"):
        build_snapshot(lake, workload, folder=tmp_path / "s")
    fill(lake, range(12, 15))
    following = build_snapshot(lake, workload, folder=tmp_path / "s")
    assert (following.labels, following.new_labels) == (15, 3)


def test_an_unfinished_snapshot_goes_on_even_with_too_few_new_labels(
    lake: Lake, workload: Workload, tmp_path: Path
) -> None:
    """All 12 were in a finished night's 13; without the 13th the rest is a snapshot of its own."""
    fill(lake, range(12))
    first = build_snapshot(lake, workload, folder=tmp_path / "s")
    lake.append([make_interaction(interaction_id="x", messages=asked("x"))])
    lake.append([correction("x", "X", rater="bad")])
    second = build_snapshot(lake, workload, folder=tmp_path / "s")
    finish_night(lake, second.snapshot_id, verdict="FAIL")
    retract(lake, Retraction(workload="triage", source_id="bad"))
    assert build_snapshot(lake, workload, folder=tmp_path / "s") == first


def test_retracted_labels_are_not_in_the_next_snapshot(
    lake: Lake, workload: Workload, tmp_path: Path
) -> None:
    fill(lake, range(12))
    lake.append([make_interaction(interaction_id="x", messages=asked("x"))])
    lake.append([correction("x", "X", rater="bad")])
    retract(lake, Retraction(workload="triage", source_id="bad"))
    snapshot = build_snapshot(lake, workload, folder=tmp_path / "s")
    assert snapshot.labels == 12


def test_an_interaction_of_another_workload_teaches_nothing_here(
    lake: Lake, workload: Workload, tmp_path: Path
) -> None:
    fill(lake, range(12))
    lake.append([make_interaction(interaction_id="o", workload="other", messages=asked("o"))])
    lake.append([correction("o", "O").model_copy(update={"workload": "other"})])
    assert build_snapshot(lake, workload, folder=tmp_path / "s").labels == 12


def test_a_snapshot_is_found_by_the_start_of_its_id(
    lake: Lake, workload: Workload, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match="has no snapshot yet"):
        find_snapshot(lake, "triage")
    fill(lake, range(12))
    first = build_snapshot(lake, workload, folder=tmp_path / "s")
    fill(lake, range(12, 14))
    second = build_snapshot(lake, workload, folder=tmp_path / "s")
    assert find_snapshot(lake, "triage") == second
    assert find_snapshot(lake, "triage", first.snapshot_id[:10]) == first
    with pytest.raises(DatasetError, match="2 snapshots of triage start with ''"):
        find_snapshot(lake, "triage", "")
    with pytest.raises(DatasetError, match="no snapshot starts with 'nope'"):
        find_snapshot(lake, "triage", "nope")
