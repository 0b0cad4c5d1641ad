"""The review page in a real browser, offline, from file://, by keyboard alone."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flywheel.errors import ConfigError
from flywheel.label import RowDefaults, import_labels
from flywheel.label.exchange import Item, parse_question
from flywheel.label.page import PageSpec, write_page
from flywheel.lake import Lake
from flywheel.records import Assessment, JsonObject, Message
from tests.browser import Page, open_browser

HOSTILE = "</script><script>window.owned = 1</script><!-- \u2028 {{data}} & <b>bold</b>"
DEFAULTS = RowDefaults(workload="triage", now=datetime(2100, 1, 1, tzinfo=UTC))


def answer(identity: str, text: str = "Rest it.") -> Item:
    return Item(
        name="urgency",
        interaction_id=identity,
        messages=(
            Message(role="system", content="You triage."),
            Message(role="user", content=f"My knee hurts. {HOSTILE}"),
        ),
        responses=(Message(role="assistant", content=text),),
    )


def pair(number: int) -> Item:
    return Item(
        name="better",
        pair_ids=(f"a{number}", f"b{number}"),
        messages=(Message(role="user", content="My knee hurts."),),
        responses=(
            Message(role="assistant", content=f"answer a{number}"),
            Message(role="assistant", content=f"answer b{number}"),
        ),
    )


def singles(tmp_path: Path, *, rater: str | None = "dr-smith", count: int = 4) -> Path:
    spec = PageSpec(
        workload="triage",
        items=tuple(answer(f"i{number}") for number in range(1, count + 1)),
        questions=(parse_question("urgency=routine|soon|urgent"), parse_question("polite")),
        rater=rater,
        columns={"guideline": "triage@3"},
    )
    write_page(spec, tmp_path / "review.html")
    return tmp_path / "review.html"


async def opened(page: Page, path: Path) -> None:
    await page.go_offline()
    await page.goto(path.as_uri())


async def saved(page: Page) -> list[dict[str, object]]:
    await page.press("Control+s")
    path = await page.next_download()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def place(page: Page) -> str:
    return str(await page.evaluate("document.querySelector('#place').textContent"))


async def test_a_whole_session_by_keyboard_saves_a_file_that_imports_once(
    tmp_path: Path, lake: Lake
) -> None:
    path = singles(tmp_path)
    async with open_browser(tmp_path / "browser") as page:
        await opened(page, path)
        assert await place(page) == "Item 1 of 4"
        await page.press("3", "1", "Enter")  # urgent, pass
        await page.press("2", "2", "c")  # soon, fail, and a corrected reply
        await page.press("Control+a")
        await page.evaluate("document.querySelector('#correction').select()")
        await page.type("Go to the emergency room.")
        await page.press("Escape", "m")
        await page.type("swelling, fever: a joint infection?")
        await page.press("Escape", "Enter")
        await page.press("x")  # skip the third
        await page.press("1", "u", "2", "1", "Enter")  # a mistake undone
        assert await page.evaluate("document.querySelector('#count').textContent") == "4 of 4 done"
        rows = await saved(page)
        assert page.errors == []
        assert [url for url in page.requests if not url.startswith("blob:")] == [path.as_uri()]
        assert await page.evaluate("window.owned") is None

    (tmp_path / "saved.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    first = import_labels(lake, tmp_path / "saved.jsonl", DEFAULTS)
    again = import_labels(lake, tmp_path / "saved.jsonl", DEFAULTS)
    assert (first.written, first.quarantined) == (7, 0), first.reasons
    assert (again.written, again.duplicates) == (0, 7)
    found = lake.fetch(Assessment, "SELECT * FROM assessments ORDER BY interaction_id, name DESC")
    said = [(a.interaction_id, a.name, a.label, a.value, a.status) for a in found]
    assert said == [
        ("i1", "urgency", "urgent", None, "submitted"),
        ("i1", "polite", None, 1.0, "submitted"),
        ("i2", "urgency", "soon", None, "submitted"),
        ("i2", "polite", None, 0.0, "submitted"),
        ("i3", "urgency", None, None, "discarded"),
        ("i4", "urgency", "soon", None, "submitted"),
        ("i4", "polite", None, 1.0, "submitted"),
    ]
    corrected = found[2]
    assert corrected.correction is not None
    assert corrected.correction.text == "Go to the emergency room."
    assert corrected.rationale == "swelling, fever: a joint infection?"
    assert {a.source_id for a in found} == {"dr-smith"}
    assert {a.guideline for a in found} == {"triage@3"}
    assert all(a.lead_time_s is not None and 0 <= a.lead_time_s < 60 for a in found)
    assert all(a.source_type == "human" and a.blinded for a in found)


async def test_work_goes_on_from_a_saved_file_and_saving_again_repeats_the_same_ids(
    tmp_path: Path,
) -> None:
    path = singles(tmp_path)
    async with open_browser(tmp_path / "one") as page:
        await opened(page, path)
        await page.press("3", "1", "Enter", "x")
        first = await saved(page)
    other = {**first[0], "interaction_id": "elsewhere", "assessment_id": "kept"}
    work = tmp_path / "work.jsonl"
    work.write_text("\n".join([*map(json.dumps, [*first, other]), '{"torn": ']))

    async with open_browser(tmp_path / "two") as page:  # another computer: nothing remembered
        await opened(page, path)
        assert await page.evaluate("document.querySelector('#progress').value") == 0
        await page.choose_files("#file", work)
        await page.wait_for("document.querySelector('#progress').value === 2")
        warning = await page.evaluate("document.querySelector('#warning').textContent")
        assert "1 line(s) could not be read" in str(warning)
        await page.press("o")
        assert await place(page) == "Item 3 of 4"
        await page.press("1", "2")
        rows = await saved(page)
    ids = [row["assessment_id"] for row in rows]
    assert ids[:3] == [row["assessment_id"] for row in first]
    assert ids[-1] == "kept"
    assert len(set(ids)) == len(rows) == 6


async def test_a_file_of_another_rater_is_not_opened(tmp_path: Path) -> None:
    work = tmp_path / "work.jsonl"
    work.write_text('{"interaction_id": "i1", "name": "polite", "value": 1, "source_id": "dr-b"}\n')
    async with open_browser(tmp_path / "browser") as page:
        await opened(page, singles(tmp_path))
        await page.choose_files("#file", work)
        await page.wait_for("!document.querySelector('#warning').hidden")
        warning = await page.evaluate("document.querySelector('#warning').textContent")
        assert "holds answers of dr-b, and you are dr-smith: not opened" in str(warning)


async def test_a_crash_costs_nothing_and_a_browser_that_keeps_nothing_says_so(
    tmp_path: Path,
) -> None:
    path = singles(tmp_path)
    async with open_browser(tmp_path / "browser") as page:
        await opened(page, path)
        await page.press("3", "1", "Enter", "m")
        await page.type("half a com")
        await page.reload()  # as after a crash: nothing was saved, no box was left
        assert await place(page) == "Item 2 of 4"
        assert await page.evaluate("document.querySelector('#comment').value") == "half a com"
        assert await page.evaluate("document.querySelector('#progress').value") == 1

        script = "Object.defineProperty(window, 'localStorage', {get() { throw new Error('no') }})"
        await page.send("Page.addScriptToEvaluateOnNewDocument", source=script)
        await page.goto(path.as_uri())
        warning = await page.evaluate("document.querySelector('#warning').textContent")
        assert "save often with Ctrl+S" in str(warning)
        await page.press("3", "1")
        assert len(await saved(page)) == 2
        assert page.errors == []


async def test_pairs_are_blind_in_an_order_of_the_raters_own_that_is_recorded(
    tmp_path: Path, lake: Lake
) -> None:
    items = tuple(pair(number) for number in range(12))
    spec = PageSpec(
        workload="triage", items=items, questions=(parse_question("better", is_pair=True),)
    )
    write_page(spec, tmp_path / "review.html")
    orders: dict[str, list[object]] = {}
    for rater in ("dr-a", "dr-b"):
        async with open_browser(tmp_path / rater) as page:
            await opened(page, tmp_path / "review.html")
            await page.type(rater)  # the page asks who reviews, with the focus in the box
            await page.press("Enter")
            first_shown = []
            for _ in items:
                shown = "document.querySelector('#answers .text').textContent"
                first_shown.append(await page.evaluate(shown))
                await page.press("1", "Enter")  # always the first: a position bias to be seen
            rows = await saved(page)
        orders[rater] = [row["presented_order"] for row in rows]
        for row, text in zip(rows, first_shown, strict=True):
            chosen = row["pair_a"] if row["label"] == "A" else row["pair_b"]
            assert text == f"answer {chosen}"
            assert (row["presented_order"] == "AB") == (row["label"] == "A")
            assert row["blinded"] is True
        (tmp_path / "saved.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        assert import_labels(lake, tmp_path / "saved.jsonl", DEFAULTS).written == len(items)
    assert {*orders["dr-a"], *orders["dr-b"]} == {"AB", "BA"}
    assert orders["dr-a"] != orders["dr-b"]


async def test_everything_can_be_reached_and_named_without_a_mouse(tmp_path: Path) -> None:
    async with open_browser(tmp_path / "browser") as page:
        await opened(page, singles(tmp_path))
        assert await page.evaluate("document.activeElement.id") == "place"
        reached = []
        for _ in range(10):
            await page.press("Tab")
            reached.append(
                await page.evaluate(
                    "(e => [e.id || e.name,"
                    " getComputedStyle(e.closest('label') || e).outlineStyle])"
                    "(document.activeElement)"
                )
            )
        names = [one[0] for one in reached if isinstance(one, list)]
        # From the item's heading on; the buttons of the header come after them, round the corner.
        assert names[:6] == ["q0", "q1", "correction", "comment", "skip", "open"]
        assert names[6] == "next"
        outlines = [one[1] for one in reached if isinstance(one, list) and one[0]]
        assert all(outline in ("solid", "auto") for outline in outlines), reached

        await page.goto((tmp_path / "review.html").as_uri())
        await page.press("?")
        assert await page.evaluate("document.querySelector('#keys').open") is True
        await page.press("Escape")
        assert await page.evaluate("document.querySelector('#keys').open") is False
        tree = await page.send("Accessibility.getFullAXTree")
        nodes = tree["nodes"]
        assert isinstance(nodes, list)
        unnamed = [node for node in nodes if isinstance(node, dict) and _is_unnamed_control(node)]
        assert unnamed == []
        groups = "[...document.querySelectorAll('fieldset > legend')].map(e => e.textContent)"
        assert await page.evaluate(groups) == ["urgency", "polite"]


def _is_unnamed_control(node: JsonObject) -> bool:
    role, name = node.get("role"), node.get("name")
    kind = role.get("value") if isinstance(role, dict) else ""
    said = name.get("value") if isinstance(name, dict) else ""
    return kind in ("button", "radio", "textbox", "progressbar", "dialog") and not said


async def test_the_policy_forbids_what_was_not_built_in(tmp_path: Path) -> None:
    async with open_browser(tmp_path / "browser") as page:
        await opened(page, singles(tmp_path))
        await page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'),"
            " {textContent: 'window.owned = 1'}))"
        )
        assert await page.evaluate("window.owned") is None
        refused = "fetch('file:///etc/hostname').then(() => 'read', () => 'refused')"
        assert await page.evaluate(refused) == "refused"
        assert any("Content Security Policy" in error for error in page.errors)


def test_a_page_without_items_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to review"):
        singles(tmp_path, count=0)
