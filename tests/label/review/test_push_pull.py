"""Push, answer through MLflow's own API, pull: on a real MLflow in SQLite."""

from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

from flywheel.errors import ConfigError, TrackingError, UpstreamUnavailableError
from flywheel.label.review import plan_push, pull_reviews, push_reviews, review_status
from flywheel.lake import Lake
from flywheel.records import Assessment, Message, ReviewItem
from flywheel.testing import make_assessment, make_interaction
from flywheel.tracking import Tracker
from flywheel.tracking.review import _require_reviews
from flywheel.workload import Workload
from tests.label.review.conftest import PAIRS, make_calls, make_workload
from tests.loopback import LoopbackServer

NOW = datetime(2026, 1, 3, 9, tzinfo=UTC)


@pytest.fixture
def tracker(tracking_uri: str) -> Tracker:
    return Tracker(tracking_uri)


class Rater:
    """What MLflow's page does when somebody presses Submit."""

    def __init__(self, uri: str) -> None:
        from mlflow.tracing.client import TracingClient

        self.client: TracingClient = TracingClient(uri)

    def says(
        self,
        item: ReviewItem,
        question: str,
        value: str | bool | float,
        *,
        why: str | None = None,
        user: str = "default",
        instead_of: str | None = None,
    ) -> str:
        from mlflow.entities import AssessmentSource, Feedback

        given = Feedback(
            name=question,
            value=value,
            rationale=why,
            source=AssessmentSource("HUMAN", user),
            overrides=instead_of,
        )
        return str(self.client.log_assessment(item.trace_id, given).assessment_id)


@pytest.fixture
def rater(tracking_uri: str) -> Rater:
    return Rater(tracking_uri)


def items(lake: Lake) -> list[ReviewItem]:
    return lake.fetch(ReviewItem, "SELECT * FROM review_items ORDER BY rater, position")


def human(lake: Lake) -> list[Assessment]:
    sql = "SELECT * FROM assessments WHERE source_type = 'human' ORDER BY created_at, name"
    return lake.fetch(Assessment, sql)


def push(lake: Lake, workload: Workload, tracker: Tracker) -> list[ReviewItem]:
    push_reviews(lake, workload, tracker, now=NOW)
    return items(lake)


def test_what_a_rater_says_is_one_assessment_each_and_pulling_again_adds_nothing(
    lake: Lake, tracker: Tracker, rater: Rater
) -> None:
    workload = make_workload()
    lake.append(make_calls(20))
    item = next(one for one in push(lake, workload, tracker) if one.rater == "dr-b")
    rater.says(item, "Is it right?", False, why="chest pain")
    rater.says(item, "harm", "serious")
    rater.says(item, "What should it be?", "Call 112.")
    report = pull_reviews(lake, workload, tracker)
    assert (report.answers, report.written, report.quarantined) == (3, 3, 0)
    by_kind = {(one.name, one.kind): one for one in human(lake)}
    verdict = by_kind["urgency", "feedback"]
    assert (verdict.value, verdict.rationale) == (0.0, "chest pain")
    assert verdict.interaction_id == item.interaction_ids[0]
    assert (verdict.source_id, verdict.rubric, verdict.round) == ("dr-b", "triage@1", "1")
    assert verdict.guideline == "triage@1"
    assert (verdict.blinded, verdict.inclusion_prob) == (True, item.inclusion_prob)
    assert by_kind["harm", "feedback"].label == "serious"
    # The correction given with the verdict is the rater's word on the question.
    (label,) = lake.query("SELECT correction FROM labels WHERE name = 'urgency'").to_pylist()
    assert "Call 112." in label["correction"]
    # The verdict it supersedes stays in every mean: else only what needed no correction would.
    (rating,) = lake.query("SELECT score FROM ratings WHERE name = 'urgency'").to_pylist()
    assert rating["score"] == 0.0
    assert pull_reviews(lake, workload, tracker).written == 0


def test_an_edited_answer_supersedes_the_one_that_was_pulled(
    lake: Lake, tracker: Tracker, rater: Rater
) -> None:
    workload = make_workload()
    lake.append(make_calls(20))
    item = push(lake, workload, tracker)[0]
    first = rater.says(item, "Is it right?", True)
    pull_reviews(lake, workload, tracker)
    rater.says(item, "Is it right?", False, instead_of=first)
    report = pull_reviews(lake, workload, tracker)
    assert (report.answers, report.written, report.edited) == (1, 1, 1)
    old, new = human(lake)
    assert (old.value, new.value, new.supersedes) == (1.0, 0.0, old.assessment_id)
    (label,) = lake.query("SELECT value, raters FROM labels").to_pylist()
    assert label == {"value": 0.0, "raters": 1}


def test_pushing_again_adds_nothing_while_the_queues_are_full_and_more_once_answered(
    lake: Lake, tracker: Tracker, rater: Rater
) -> None:
    workload = make_workload(minutes=2, random_share=1)
    lake.append(make_calls(20))
    first = push(lake, workload, tracker)
    assert len(first) == 4 and push(lake, workload, tracker) == first
    rater.says(first[0], "Is it right?", True)
    second = push(lake, workload, tracker)
    assert len(second) == 5
    pairs = [(one.rater, one.interaction_ids) for one in second]
    assert len(set(pairs)) == len(pairs)


def test_a_blinded_trace_says_nothing_of_who_answered(lake: Lake, tracker: Tracker) -> None:
    from mlflow import MlflowClient

    def shown(workload: Workload) -> str:
        assert workload.review is not None
        guideline = workload.review.guideline
        item = next(one for one in push(lake, workload, tracker) if one.guideline == guideline)
        trace = MlflowClient(tracker.uri).get_trace(item.trace_id)
        assert trace.info.request_preview.startswith("It hurts since")
        assert trace.info.tags["flywheel.item"] == item.interaction_ids[0]
        spans = trace.data.spans[0]
        assert spans.inputs["messages"][-1]["content"].startswith("It hurts since")
        assert spans.outputs["choices"][0]["message"]["role"] == "assistant"
        return str(trace.to_json())

    lake.append(make_calls(20))
    assert "abcdef123456" not in shown(make_workload(minutes=1))
    assert "abcdef123456" in shown(
        make_workload(minutes=1, blinded=False, experiment="other", guideline="triage@2")
    )


def test_a_preference_comes_back_in_the_order_of_the_pair_and_not_of_the_page(
    lake: Lake, tracker: Tracker, rater: Rater
) -> None:
    workload = make_workload(questions=PAIRS, minutes=20)
    calls = make_calls(12)
    others = [
        call.model_copy(
            update={
                "interaction_id": f"j-{n:03}",
                "response": Message(role="assistant", content=f"Other {n}."),
            }
        )
        for n, call in enumerate(calls)
    ]
    lake.append([*calls, *others])
    asked = push(lake, workload, tracker)
    assert {one.presented_order for one in asked} == {"AB", "BA"}
    for one in asked:
        rater.says(one, "Which is better?", "Reply A is better")
    pull_reviews(lake, workload, tracker)
    by_pair = {one.interaction_ids: one for one in asked}
    for said in human(lake):
        assert said.pair_ids is not None
        order = by_pair[said.pair_ids].presented_order
        assert said.presented_order == order and said.blinded is True
        assert (said.label, said.value) == (("A", 1.0) if order == "AB" else ("B", 0.0))
    liked = lake.query("SELECT interaction_id FROM pairs WHERE pair_source = 'preference'")
    shown_first = {one.interaction_ids[one.presented_order == "BA"] for one in asked}
    assert set(liked.column("interaction_id").to_pylist()) == shown_first


def test_a_queue_deleted_in_the_ui_is_made_anew_and_what_was_pulled_is_kept(
    lake: Lake, tracker: Tracker, rater: Rater
) -> None:
    workload = make_workload(raters=["dr-a"], minutes=3, random_share=1)
    lake.append(make_calls(20))
    asked = push(lake, workload, tracker)
    rater.says(asked[0], "Is it right?", True)
    pull_reviews(lake, workload, tracker)
    from flywheel.tracking import ReviewQueues

    door = ReviewQueues(tracker, "triage-review")
    (queue,) = door.queues().values()
    rater.client._delete_review_queue(queue.queue_id)
    report = pull_reviews(lake, workload, tracker)
    assert report.missing_queues == ("dr-a: replies (triage@1)",)
    assert len(human(lake)) == 1
    (status,) = review_status(lake, workload, tracker)
    assert (status.done, status.asked, status.pulled) == (None, 3, 1)
    push(lake, workload, tracker)
    (anew,) = door.queues().values()
    still_open = {one.trace_id for one in items(lake)} - {asked[0].trace_id}
    assert anew.queue_id != queue.queue_id and set(anew.items) == still_open


def test_unknown_raters_and_answers_not_offered_go_to_quarantine_and_the_rest_is_kept(
    lake: Lake, tracker: Tracker, rater: Rater
) -> None:
    workload = make_workload()
    lake.append(make_calls(20))
    item = push(lake, workload, tracker)[0]
    rater.says(item, "Is it right?", True)
    rater.says(item, "harm", "catastrophic")
    rater.says(item, "harm", "none", user="stranger@example.org")
    rater.says(item, "Something else", "hello")
    report = pull_reviews(lake, workload, tracker)
    assert report.written == 1
    assert report.reasons == {
        "answer_not_offered": 1,
        "unknown_rater": 1,
        "unknown_question": 1,
    }
    found = lake.query("SELECT detail, payload FROM quarantine WHERE reason = 'unknown_rater'")
    (row,) = found.to_pylist()
    assert "'stranger@example.org'" in row["detail"] and "dr-a, dr-b" in row["detail"]
    assert b'"value": "none"' in row["payload"]
    pull_reviews(lake, workload, tracker)
    assert lake.query("SELECT count(*) AS n FROM quarantine").to_pylist() == [{"n": 3}]


def test_a_known_rater_who_answers_in_anothers_queue_is_named(
    lake: Lake, tracker: Tracker, rater: Rater
) -> None:
    workload = make_workload(raters=["dr-a"], groups={"nurses": ["n-1", "n-2"]}, minutes=2)
    lake.append(make_calls(20))
    by_rater = {one.rater: one for one in push(lake, workload, tracker)}
    rater.says(by_rater["nurses"], "Is it right?", True, user="N-2")
    pull_reviews(lake, workload, tracker)
    assert [one.source_id for one in human(lake)] == ["n-2"]


def test_what_experts_are_split_on_goes_to_an_adjudicator_and_comes_back_as_the_last_word(
    lake: Lake, tracker: Tracker, rater: Rater
) -> None:
    workload = make_workload(adjudicators=["prof"])
    lake.append(make_calls(3))
    lake.append(
        [
            make_assessment(interaction_id="i-001", source_id=who, value=value, rubric="triage@1")
            for who, value in (("dr-a", 1.0), ("dr-b", 0.0))
        ]
    )
    report = push_reviews(lake, workload, tracker, adjudicate=True, now=NOW)
    (item,) = items(lake)
    assert (item.rater, item.round, item.interaction_ids) == ("prof", "adjudication", ("i-001",))
    assert [one.queue for one in report.queues] == ["prof: adjudicate replies (triage@1)"]
    rater.says(item, "Is it right?", False)
    pull_reviews(lake, workload, tracker)
    (label,) = lake.query("SELECT value, label_source FROM labels").to_pylist()
    assert label == {"value": 0.0, "label_source": "adjudicated"}
    again = push_reviews(lake, workload, tracker, adjudicate=True, now=NOW)
    assert again.plan.items == ()


def test_what_judges_and_users_complain_of_is_asked_first(lake: Lake) -> None:
    workload = make_workload(
        raters=["dr-a"], minutes=3, random_share=0.01, strategies=["complaints", "panel_split"]
    )
    lake.append(make_calls(40))
    lake.append(
        [
            make_assessment(
                interaction_id="i-007", source_type="end_user", source_id="u", value=0.0
            ),
            *(
                make_assessment(
                    interaction_id="i-011",
                    source_type="llm_judge",
                    source_id=f"judge:j/{model}",
                    value=value,
                )
                for model, value in (("m1", 1.0), ("m2", 0.0))
            ),
        ]
    )
    found = {one.reason: one.item for one in plan_push(lake, workload).items}
    assert found["complaints"] == "i-007" and found["panel_split"] == "i-011"
    assert lake.query("SELECT count(*) AS n FROM review_items").to_pylist() == [{"n": 0}]


def test_a_pair_whose_judge_changed_its_mind_with_the_order_is_asked(lake: Lake) -> None:
    workload = make_workload(
        questions=PAIRS,
        raters=["dr-a"],
        minutes=2,
        random_share=0.01,
        strategies=["order_disagreement"],
    )
    lake.append(make_calls(20))
    pairs = [(f"i-{n:03}", f"i-{n + 1:03}") for n in range(0, 20, 2)]
    lake.append(
        [
            make_assessment(
                pair_ids=pair, kind="preference", source_type="llm_judge",
                source_id="judge:j/m", name=f"j:{order}", label=label,
            )
            for pair in pairs
            for order, label in (("AB", "A"), ("BA", "B" if pair == pairs[7] else "A"))
        ]
    )  # fmt: skip
    plan = plan_push(lake, workload)
    found = {one.reason: one.item for one in plan.items}
    assert found["order_disagreement"] == "i-014 i-015"


def test_a_text_unlike_all_that_was_asked_is_asked(lake: Lake) -> None:
    workload = make_workload(
        raters=["dr-a"], minutes=2, random_share=0.01, strategies=["new_clusters"]
    )
    strange = make_interaction(
        interaction_id="x", messages=(Message(role="user", content="Kann ich Rezepte faxen?"),)
    )
    known = make_assessment(interaction_id="i-000", name="harm", label="none", source_id="dr-z")
    lake.append([*make_calls(30), strange])
    lake.append([known])
    found = {one.reason: one.item for one in plan_push(lake, workload).items}
    assert found["new_clusters"] == "x"


def test_what_judges_said_is_on_the_trace_only_where_declared(lake: Lake, tracker: Tracker) -> None:
    from mlflow import MlflowClient

    workload = make_workload(raters=["dr-a"], minutes=1, show_judges=True)
    lake.append(make_calls(1))
    judged = make_assessment(
        interaction_id="i-000", source_type="llm_judge", source_id="judge:j/m", name="j", value=0.5
    )
    failed = judged.model_copy(
        update={"assessment_id": "x", "value": None, "status": "error", "error_type": "budget"}
    )
    lake.append([judged, failed])
    (item,) = push(lake, workload, tracker)
    assert item.blinded is False
    logged = MlflowClient(tracker.uri).get_trace(item.trace_id).info.assessments
    by_value = {one.feedback.value: one for one in logged}
    assert set(by_value) == {0.5, None}
    assert by_value[0.5].source.source_type == "LLM_JUDGE"
    assert by_value[None].error.error_code == "budget"
    assert tracker.log_assessments(item.trace_id, [judged, failed]) == 0
    assert pull_reviews(lake, workload, tracker).answers == 0


def test_changed_questions_under_an_old_guideline_are_refused(lake: Lake, tracker: Tracker) -> None:
    lake.append(make_calls(20))
    push(lake, make_workload(), tracker)
    fewer = make_workload(questions={"harm": {"kind": "category", "options": ["none", "minor"]}})
    with pytest.raises(TrackingError, match="is another"):
        push(lake, fewer, tracker)


def test_a_workload_without_a_review_section_says_what_to_write(
    lake: Lake, tracker: Tracker
) -> None:
    workload = make_workload().model_copy(update={"review": None})
    with pytest.raises(ConfigError, match="no review section"):
        push_reviews(lake, workload, tracker)


def test_nobody_to_adjudicate_is_told(lake: Lake) -> None:
    with pytest.raises(ConfigError, match=r"review.adjudicators is empty"):
        plan_push(lake, make_workload(), adjudicate=True)


def test_a_server_that_is_down_changes_nothing(lake: Lake) -> None:
    lake.append(make_calls(5))
    with pytest.raises(UpstreamUnavailableError):
        push_reviews(lake, make_workload(), Tracker("http://127.0.0.1:9"))
    assert items(lake) == []


def test_an_item_erased_since_it_was_asked_is_not_shown_again(lake: Lake, tracker: Tracker) -> None:
    workload = make_workload(raters=["dr-a"], minutes=1)
    ghost = ReviewItem(
        review_item_id="g", workload="triage", created_at=NOW, trace_id="tr-" + "0" * 32,
        rater="dr-a", interaction_ids=("gone",), reason="random", inclusion_prob=0.5,
        guideline="triage@1", blinded=True, position=0,
    )  # fmt: skip
    lake.append(make_calls(2))
    lake.append([ghost])
    report = push_reviews(lake, workload, tracker, now=NOW + timedelta(hours=1))
    assert [(one.new, one.waiting) for one in report.queues] == [(0, 1)]


@pytest.mark.parametrize(("status", "body"), [(200, "2.9.1"), (200, "3.13.2"), (404, "")])
def test_a_server_without_review_queues_is_told_so(status: int, body: str) -> None:
    """MLflow got them in 3.14; servers before 2.something do not even tell their version."""

    class OldServer(LoopbackServer):
        def app(self) -> web.Application:
            async def version(_: web.Request) -> web.Response:
                return web.Response(status=status, text=body)

            app = web.Application()
            app.router.add_get("/version", version)
            return app

    server = OldServer().start()
    try:
        with pytest.raises(TrackingError) as raised:
            _require_reviews(server.url)
    finally:
        server.stop()
    assert "review queues came with 3.14" in str(raised.value)
    assert "pip install" in str(raised.value)
