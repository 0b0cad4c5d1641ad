"""A review as a clinician does it: MLflow's own page in a browser, then SQL."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flywheel.label.review import PushReport, pull_reviews, push_reviews
from flywheel.lake import Lake
from flywheel.records import Message
from flywheel.tracking import Tracker
from tests.browser import Page, open_browser, require_chromium
from tests.label.review.conftest import PAIRS, REVIEW, make_calls, make_workload

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
LOADED_S = 120.0
"""The page is megabytes of JavaScript, and the machine may be busy."""

QUESTIONS = {
    "urgency": {
        "kind": "pass_fail",
        "title": "Is the urgency right?",
        "pass_label": "Right",
        "fail_label": "Wrong",
        "comment": True,
    },
    "harm": {
        "kind": "category",
        "title": "Could the reply do harm?",
        "options": ["none", "minor", "serious"],
    },
    "corrected": {
        "kind": "correction",
        "name": "urgency",
        "title": "What should the reply have been?",
    },
}


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    require_chromium()
    async with open_browser(tmp_path / "browser") as opened:
        await opened.set_window(1440, 860)
        yield opened


class Review:
    """The page of one queue."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def open(self, url: str, question: str) -> None:
        await self.page.goto("about:blank")
        await self.page.goto(url)
        await self.page.wait_for(f"{BODY}.includes({json.dumps(question)})", timeout_s=LOADED_S)

    async def shows(self, text: str) -> None:
        await self.page.wait_for(f"{BODY}.includes({json.dumps(text)})", timeout_s=LOADED_S)

    async def press(self, text: str, *, among: str = "button, [role=radio], label, input") -> None:
        """Clicks the last of the elements that read exactly so."""
        found = (
            f"[...document.querySelectorAll({json.dumps(among)})]"
            f".filter(e => e.innerText?.trim() === {json.dumps(text)} && !e.disabled).at(-1)"
        )
        await self.page.wait_for(found, timeout_s=LOADED_S)
        await self.page.evaluate(f"{found}.setAttribute('data-press', '1')")
        await self.page.click("[data-press]")
        await self.page.evaluate(
            "document.querySelector('[data-press]')?.removeAttribute('data-press')"
        )

    async def choose(self, text: str) -> None:
        await self.page.click("[role=combobox]")
        await self.press(text, among="[role=option]")

    async def write(self, selector: str, text: str) -> None:
        await self.page.click(selector)
        await self.page.type(text)


BODY = "document.body.innerText"


def url_of(report: PushReport, kind: str) -> str:
    (url,) = [one.url for one in report.queues if kind in one.queue]
    assert url is not None
    return url


async def test_a_clinician_answers_in_the_browser_and_it_is_in_sql(
    mlflow_server: str, lake: Lake, page: Page, tmp_path: Path
) -> None:
    workload = make_workload(
        **{**REVIEW, "raters": ["dr-a"], "minutes": 2, "questions": {**QUESTIONS, **PAIRS}}
    )
    call = make_calls(1)[0]
    other = call.model_copy(
        update={"interaction_id": "j", "response": Message(role="assistant", content="Call 112.")}
    )
    lake.append([call, other])
    tracker = Tracker(mlflow_server)
    report = push_reviews(lake, workload, tracker, now=datetime.now(UTC))
    review = Review(page)

    await review.open(url_of(report, "replies"), "Is the urgency right?")
    await review.shows("It hurts since 0 days.")
    shown = await page.evaluate(BODY)
    assert "abcdef123456" not in str(shown)
    await review.press("Wrong")
    await review.write("textarea[placeholder^=Rationale]", "red flags were missed")
    await review.choose("serious")
    await review.write("textarea:not([placeholder^=Rationale])", "Go to the emergency room now.")
    await page.screenshot(tmp_path / "answered.png")
    await review.press("Submit")
    await review.shows("have been reviewed")

    await review.open(url_of(report, "pairs"), "Which is better?")
    await review.shows("Reply B")
    first = str(await page.evaluate(BODY)).split("Reply A", 1)[1].split("Reply B", 1)[0]
    await review.choose("Reply A is better")
    await page.screenshot(tmp_path / "pair.png")
    await review.press("Submit")
    await review.shows("have been reviewed")

    pulled = pull_reviews(lake, workload, tracker)
    assert (pulled.written, pulled.quarantined) == (4, 0)
    rows = lake.query(
        "SELECT name, kind, value, label, rationale, correction ->> '$.content' AS correction, "
        "pair_ids ->> 0 AS a, source_id FROM assessments ORDER BY name, kind"
    ).to_pylist()
    by_key = {(row["name"], row["kind"]): row for row in rows}
    verdict = by_key["urgency", "feedback"]
    assert (verdict["value"], verdict["rationale"]) == (0.0, "red flags were missed")
    assert by_key["urgency", "correction"]["correction"] == "Go to the emergency room now."
    assert by_key["harm", "feedback"]["label"] == "serious"
    preference = by_key["better", "preference"]
    liked = "i-000" if "Reply 0 of i." in first else "j"
    assert preference["label"] == ("A" if preference["a"] == liked else "B")
    assert {row["source_id"] for row in rows} == {"dr-a"}
    (pair,) = lake.query(
        "SELECT interaction_id FROM pairs WHERE pair_source = 'preference'"
    ).to_pylist()
    assert pair["interaction_id"] == liked
    assert pull_reviews(lake, workload, tracker).written == 0
