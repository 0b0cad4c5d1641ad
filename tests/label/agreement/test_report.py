"""The report over a real lake: what it measures, leaves out, and says where it cannot."""

import re
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from flywheel.label import RowDefaults, import_labels
from flywheel.label.agreement import (
    AgreementReport,
    Asked,
    agreement_page,
    fleiss_kappa,
    list_disagreements,
    report_agreement,
)
from flywheel.lake import Lake
from flywheel.records import Assessment
from flywheel.testing import make_assessment, make_interaction
from tests.label.agreement.world import MONDAY, fill

QUICK = Asked(workload="triage", resamples=100)


def rated(item: str, rater: str, label: str, minute: int = 0, **fields: object) -> Assessment:
    at = MONDAY + timedelta(minutes=minute)
    given = {"interaction_id": item, "source_id": rater, "label": label, "created_at": at}
    return make_assessment(**{**given, **fields})


def reported(lake: Lake, *judgements: Assessment, **asked: object) -> AgreementReport:
    lake.append(judgements)
    return report_agreement(lake, QUICK.model_copy(update=asked))


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(str(tmp_path_factory.mktemp("clinic") / "lake"))
    fill(lake)
    return lake


@pytest.fixture(scope="module")
def whole(clinic: Lake) -> AgreementReport:
    return report_agreement(clinic, QUICK)


def test_every_criterion_has_its_coefficients_with_intervals(whole: AgreementReport) -> None:
    assert [one.name for one in whole.overall] == ["helpful", "urgency"]
    helpful, urgency = whole.overall
    assert [c.measure for c in helpful.coefficients] == [
        "fleiss_kappa",
        "krippendorff_nominal",
        "gwet_ac1",
    ], "of two answers the order adds nothing"
    assert [c.measure for c in urgency.coefficients][3:] == [
        "krippendorff_ordinal",
        "krippendorff_interval",
    ]
    for one in [*helpful.coefficients, *urgency.coefficients]:
        assert one.low is not None
        assert one.value is not None
        assert one.high is not None
        assert one.low < one.value < one.high


def test_a_rater_who_drifts_shows_in_weeks_in_pairs_and_against_gold(
    whole: AgreementReport,
) -> None:
    urgency = [one for one in whole.weeks if one.name == "urgency"]
    assert [one.group for one in urgency] == [f"2026-W{week:02d}" for week in range(2, 10)]
    alpha = [one.coefficients[1].value or 0 for one in urgency]
    assert alpha[0] > alpha[-1] + 0.2
    kappa = {(p.rater_a, p.rater_b): p.cohen_kappa for p in whole.pairs if p.name == "urgency"}
    sound, drifting = kappa["dr-a", "dr-b"], kappa["dr-a", "dr-c"]
    assert sound.low is not None
    assert drifting.high is not None
    assert sound.low > drifting.high
    share = {
        (one.rater, one.week): one.agreement.mean
        for one in whole.drift
        if one.agreement is not None
    }
    assert share["dr-c", "2026-W02"] > 0.9 > 0.6 > share["dr-c", "2026-W09"]
    assert share["dr-a", "2026-W09"] > 0.9


def test_versions_of_the_guideline_are_told_apart(clinic: Lake, whole: AgreementReport) -> None:
    versions = {one.group: one for one in whole.guidelines if one.name == "urgency"}
    assert set(versions) == {"2026-01", "2026-02"}
    assert any("different guidelines" in note for note in whole.notes)
    only = report_agreement(clinic, QUICK.model_copy(update={"guideline": "2026-01"}))
    urgency = next(one for one in only.overall if one.name == "urgency")
    assert urgency.items == versions["2026-01"].items == 96
    assert not any("different guidelines" in note for note in only.notes)


def test_conversations_are_drawn_whole(lake: Lake) -> None:
    """The same forty ratings, once in forty conversations and once in four: wider."""
    judgements = [
        rated(f"i{n}", rater, "x" if (n * 7 + shift) % 5 > 1 else "y")
        for n in range(40)
        for shift, rater in enumerate(["a", "b"])
    ]
    alone = reported(lake, *judgements).overall[0].coefficients[0]
    lake.append(
        [make_interaction(interaction_id=f"i{n}", conversation_id=f"c{n % 4}") for n in range(40)]
    )
    together = report_agreement(lake, QUICK).overall[0].coefficients[0]
    assert together.value == alone.value
    assert together.low is not None
    assert alone.low is not None
    assert together.high is not None
    assert alone.high is not None
    assert together.high - together.low != alone.high - alone.low


def test_the_latest_of_contradicting_ratings_counts_and_is_told(lake: Lake) -> None:
    report = reported(
        lake,
        rated("1", "a", "x", 1), rated("1", "a", "y", 2), rated("1", "b", "y", 3),
        rated("2", "a", "x", 4), rated("2", "b", "x", 5),
    )  # fmt: skip
    (told,) = report.contradictions
    assert (told.rater, told.item, told.answers) == ("a", "1", ("x", "y"))
    assert report.overall[0].coefficients[0].value == 1
    assert any("contradicted themselves" in note for note in report.notes)


def test_raters_without_a_name_are_told(lake: Lake) -> None:
    report = reported(lake, rated("1", "a", "x"), rated("1", "b", "x", source_id=None))
    assert any("no source_id" in note for note in report.notes)


def test_no_overlap_is_a_sentence_and_not_a_number(lake: Lake) -> None:
    report = reported(lake, rated("1", "a", "x"), rated("2", "b", "y"))
    assert report.overall[0].items == 0
    for one in [*report.overall[0].coefficients, report.pairs[0].cohen_kappa]:
        assert (one.value, one.low, one.high) == (None, None, None)
        assert one.reason == "no item is rated by two raters: no agreement can be computed"


def test_one_category_is_undefined_with_the_reason(lake: Lake) -> None:
    report = reported(lake, *(rated(n, r, "x") for n in "123" for r in "ab"))
    for one in [*report.overall[0].coefficients, report.pairs[0].cohen_kappa]:
        assert one.value is None
        assert one.reason == "every rating is 'x': agreement beyond chance is undefined"
    assert report.overall[0].unanimous is not None
    assert report.overall[0].unanimous.mean == 1


def test_who_could_not_judge_does_not_disagree(lake: Lake) -> None:
    report = reported(
        lake,
        *(rated(n, r, n) for n in "123" for r in "ab"),
        rated("1", "c", "cannot_judge"),
    )
    group = report.overall[0]
    assert (group.cannot_judge, group.raters, group.coefficients[0].value) == (1, 2, 1)


def test_a_pair_is_the_same_pair_whichever_way_round_it_was_shown(lake: Lake) -> None:
    def prefers(rater: str, a: str, b: str, label: str) -> Assessment:
        return rated("", rater, label, interaction_id=None, pair_ids=(a, b), kind="preference")

    report = reported(
        lake,
        prefers("a", "i1", "i2", "A"), prefers("b", "i2", "i1", "B"),
        prefers("a", "j1", "j2", "B"), prefers("b", "j2", "j1", "A"),
        prefers("a", "k1", "k2", "tie"), prefers("b", "k1", "k2", "A"),
    )  # fmt: skip
    assert report.overall[0].categories == ("A", "B", "tie")
    units: list[list[str | None]] = [["A", "A"], ["B", "B"], ["tie", "A"]]
    assert report.overall[0].coefficients[0].value == pytest.approx(fleiss_kappa(units))
    (waiting,) = list_disagreements(lake, "triage")
    assert (waiting.pair_ids, waiting.told) == (("k1", "k2"), "a: tie; b: A")


def test_a_disagreement_waits_until_it_is_adjudicated(lake: Lake) -> None:
    lake.append(
        [
            rated("split", "a", "x", 1), rated("split", "b", "y", 1),
            rated("two of three", "a", "x"), rated("two of three", "b", "x"),
            rated("two of three", "c", "y"),
            rated("agreed", "a", "x"), rated("agreed", "b", "x"),
            rated("only users", "u", "x", source_type="end_user"),
        ]
    )  # fmt: skip
    waiting = list_disagreements(lake, "triage")
    assert [(one.item, one.has_majority) for one in waiting] == [
        ("split", False),
        ("two of three", True),
    ]
    assert [said.rater for said in waiting[0].opinions] == ["a", "b"]
    lake.append([rated("split", "chief", "y", 9, round="adjudication")])
    assert [one.item for one in list_disagreements(lake, "triage")] == ["two of three"]
    lake.append([rated("split", "chief-2", "x", 9, round="adjudication")])
    assert list_disagreements(lake, "triage")[0].item == "split", "two adjudicators differ"


def test_an_expectation_is_gold_too(lake: Lake) -> None:
    expected = rated("1", "curator", "x", kind="expectation")
    report = reported(lake, expected, rated("1", "a", "x"), rated("1", "b", "y"))
    gold = {one.rater: one.gold.agreement for one in report.raters}
    assert set(gold) == {"a", "b"}, "gold is not a rater"
    assert gold["a"] is not None
    assert gold["b"] is not None
    assert (gold["a"].mean, gold["b"].mean) == (1, 0)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "action")]


def test_the_page_holds_its_charts_and_asks_nobody_for_anything(
    clinic: Lake, whole: AgreementReport
) -> None:
    page = agreement_page(whole, list_disagreements(clinic, "triage"))
    seen = _Links()
    seen.feed(page)
    assert seen.links == []
    assert {"script", "link", "img", "iframe"} & set(seen.tags) == set()
    assert seen.tags.count("svg") == 7, "2 criteria, weeks, guidelines, 2 matrices, drift"
    assert not re.search(r"url\(|@import|https?:", page)


def test_what_people_wrote_is_text_in_the_page(lake: Lake) -> None:
    evil = "<script>alert(1)</script>"
    report = reported(lake, rated("1", evil, evil), rated("1", "b", "$body"))
    page = agreement_page(report, list_disagreements(lake, "triage"))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "$body" in page


def test_labels_imported_under_a_guideline_carry_it(lake: Lake, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("interaction_id,name,label,source_id,guideline\n1,u,x,a,v2\n1,u,x,b,\n")
    now = datetime.fromisoformat("2026-01-05T00:00:00+00:00")
    import_labels(lake, file, RowDefaults(workload="triage", guideline="v1", now=now))
    rows = lake.query("SELECT source_id, guideline FROM assessments ORDER BY 1").to_pylist()
    assert [tuple(row.values()) for row in rows] == [("a", "v2"), ("b", "v1")]
