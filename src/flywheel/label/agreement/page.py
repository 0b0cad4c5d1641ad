"""`flywheel label agreement --html`: the report as one page that needs nothing else.

Input: an AgreementReport and the items in disagreement. Output: HTML with its charts inline; no
script, no font, no request to anywhere.
"""

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template

from flywheel.label.agreement.charts import Mark, intervals, matrix, told, weeks
from flywheel.label.agreement.measure import Coefficient, GroupAgreement
from flywheel.label.agreement.queue import Disagreement
from flywheel.label.agreement.report import AgreementReport, GoldAgreement
from flywheel.records import Interval

MEASURES = {
    "fleiss_kappa": "Fleiss' kappa",
    "krippendorff_nominal": "Krippendorff's alpha",
    "krippendorff_ordinal": "Krippendorff's alpha, ordinal",
    "krippendorff_interval": "Krippendorff's alpha, interval",
    "gwet_ac1": "Gwet's AC1",
    "cohen_kappa": "Cohen's kappa",
    "cohen_kappa_quadratic": "Cohen's kappa, quadratic",
}
SHOWN = 50
"""Items in disagreement and contradictions listed; the command lists them all."""


def agreement_page(report: AgreementReport, queue: Sequence[Disagreement]) -> str:
    """The page."""
    asked = report.asked
    title = f"{asked.workload}: agreement of raters"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(_about(report))}</p>',
        _notes(report.notes),
        *(_overall(one) for one in report.overall),
        *_groups("By week", report.weeks),
        *_groups("By guideline", report.guidelines),
        *_pairs(report),
        _raters(report),
        *_drift(report.drift),
        _queue(queue),
        _contradictions(report),
    ]
    template = (files("flywheel.label.agreement") / "page.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=escape(title), body="\n".join(filter(None, body)), level=f"{asked.level:.0%}"
    )


def _about(report: AgreementReport) -> str:
    asked = report.asked
    restricted = f", guideline {asked.guideline}" if asked.guideline else ""
    question = f", question {asked.name}" if asked.name else ""
    return (
        f"{asked.source_type} raters{question}{restricted}. "
        f"Made {report.made_at:%Y-%m-%d %H:%M} UTC. "
        f"Intervals are {asked.level:.0%}, by bootstrap of whole conversations."
    )


def _notes(notes: Sequence[str]) -> str:
    lines = "".join(f"<p>{escape(note)}.</p>" for note in notes)
    return f'<div class="notes">{lines}</div>' if notes else ""


def _overall(one: GroupAgreement) -> str:
    unanimous = _mark("Unanimous (share of items)", one.unanimous)
    marks = [unanimous, *(_coefficient_mark(found) for found in one.coefficients)]
    facts = (
        f"{one.raters} raters, {one.items} items rated by two or more, {one.rated_once} by one; "
        f"{one.ratings} ratings, {one.cannot_judge} times somebody could not judge. "
        f"Answers: {_listed(one.categories)}."
    )
    chart = intervals(marks, title=f"Agreement on {one.name}")
    return f'<h2>{escape(one.name)}</h2><p class="soft">{escape(facts)}</p>{_figure(chart)}'


def _groups(title: str, groups: Sequence[GroupAgreement]) -> list[str]:
    """Krippendorff's alpha over weeks or versions; a single one says nothing over time."""
    if len({one.group for one in groups}) < 2:
        return []
    lines: dict[str, list[Mark]] = {}
    for one in groups:
        found = next(c for c in one.coefficients if c.measure == "krippendorff_nominal")
        mark = _coefficient_mark(found)._replace(
            label=one.group or "", note=f"{one.items} items. {found.reason or ''}"
        )
        lines.setdefault(one.name, []).append(mark)
    chart = weeks(lines, title=f"Krippendorff's alpha {title.lower()}")
    rows = [
        [one.name, one.group or "", str(one.raters), str(one.items), *_cells(one.coefficients)]
        for one in groups
    ]
    head = ["question", "", "raters", "items", "Fleiss", "Krippendorff", "AC1"]
    about = '<p class="soft">Krippendorff\'s alpha (nominal).</p>'
    return [f"<h2>{title}</h2>{about}{_figure(chart)}", _table(head, rows)]


def _cells(coefficients: Sequence[Coefficient]) -> list[str]:
    return [told(_coefficient_mark(one)) for one in coefficients[:3]]


def _pairs(report: AgreementReport) -> list[str]:
    parts = []
    for name in dict.fromkeys(pair.name for pair in report.pairs):
        pairs = [pair for pair in report.pairs if pair.name == name]
        raters = sorted({rater for pair in pairs for rater in (pair.rater_a, pair.rater_b)})
        cells = {
            (pair.rater_a, pair.rater_b): _coefficient_mark(pair.cohen_kappa)._replace(
                note=f"{pair.items} items. {pair.cohen_kappa.reason or ''}"
            )
            for pair in pairs
        }
        shown = [_named(rater) for rater in raters]
        named = {(_named(a), _named(b)): mark for (a, b), mark in cells.items()}
        rows = [
            [
                _named(pair.rater_a), _named(pair.rater_b), str(pair.items),
                told(_mark("", pair.agreement)),
                told(_coefficient_mark(pair.cohen_kappa)),
                told(_coefficient_mark(pair.cohen_kappa_quadratic))
                if pair.cohen_kappa_quadratic else "",
            ]
            for pair in pairs
        ]  # fmt: skip
        head = ["rater", "rater", "items", "agreement", "Cohen's kappa", "quadratic"]
        chart = matrix(shown, named, title=f"Cohen's kappa of each two raters on {name}")
        parts.append(f"<h2>Two by two: {escape(name)}</h2>{_figure(chart)}{_table(head, rows)}")
    return parts


def _raters(report: AgreementReport) -> str:
    rows = [
        [
            one.name, _named(one.rater), str(one.ratings), str(one.cannot_judge),
            str(one.contradictions), told(_mark("", one.with_others)),
            str(one.gold.items), told(_mark("", one.gold.agreement)),
        ]
        for one in report.raters
    ]  # fmt: skip
    head = [
        "question",
        "rater",
        "ratings",
        "could not judge",
        "contradictions",
        "agrees with others",
    ]
    return (
        f"<h2>Raters</h2>{_table([*head, 'gold items', 'agrees with gold'], rows)}" if rows else ""
    )


def _drift(drift: Sequence[GoldAgreement]) -> list[str]:
    parts = []
    for name in dict.fromkeys(one.name for one in drift):
        lines: dict[str, list[Mark]] = {}
        for one in drift:
            if one.name == name:
                mark = _mark(one.week or "", one.agreement)._replace(note=f"{one.items} items")
                lines.setdefault(_named(one.rater), []).append(mark)
        chart = weeks(lines, title=f"Each rater's agreement with gold on {name}, by week")
        about = (
            "Share of gold items answered as gold says. Gold that came of adjudication is of the "
            "hard items: compare raters and weeks, not with 1."
        )
        parts.append(
            f"<h2>Drift against gold: {escape(name)}</h2>"
            f'<p class="soft">{about}</p>{_figure(chart)}'
        )
    return parts


def _queue(queue: Sequence[Disagreement]) -> str:
    if not queue:
        none = "None: experts agree, or an adjudication has settled it."
        return f"<h2>Items in disagreement</h2><p>{none}</p>"
    rows = [
        [
            one.name, one.item, "yes" if one.has_majority else "no",
            one.told,
        ]
        for one in queue[:SHOWN]
    ]  # fmt: skip
    more = (
        f"<p>{len(queue) - SHOWN} more: flywheel label disagreements</p>"
        if len(queue) > SHOWN
        else ""
    )
    head = ["question", "item", "majority", "who said what"]
    return f"<h2>Items in disagreement: {len(queue)}</h2>{_table(head, rows)}{more}"


def _contradictions(report: AgreementReport) -> str:
    rows = [
        [one.name, _named(one.rater), one.item, " → ".join(one.answers)]
        for one in report.contradictions[:SHOWN]
    ]
    head = ["question", "rater", "item", "said, in turn; the last counts"]
    return f"<h2>Raters who changed their answer</h2>{_table(head, rows)}" if rows else ""


def _figure(chart: str) -> str:
    return f'<div class="figure">{chart}</div>'


def _mark(label: str, interval: Interval | None) -> Mark:
    if interval is None:
        return Mark(label, None, None, None, "nothing to compare")
    return Mark(label, interval.mean, interval.low, interval.high)


def _coefficient_mark(one: Coefficient) -> Mark:
    return Mark(MEASURES[one.measure], one.value, one.low, one.high, one.reason or "")


def _named(rater: str) -> str:
    return rater or "(no name)"


def _listed(names: Sequence[str]) -> str:
    cut = [name if len(name) <= 30 else f"{name[:29]}…" for name in names[:12]]
    return ", ".join(cut) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    titles = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    return f'<div class="figure"><table><tr>{titles}</tr>{lines}</table></div>'


def _cell(text: str) -> str:
    """Numbers and names stay on one line, answers wrap."""
    shown = escape(text if len(text) <= 400 else f"{text[:399]}…")
    return f'<td class="short">{shown}</td>' if len(text) <= 28 else f"<td>{shown}</td>"
