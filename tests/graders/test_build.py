from pathlib import Path

import pytest

from flywheel.errors import ConfigError
from flywheel.graders import build_graders, grader_hash, template_paths
from flywheel.records import JsonObject
from flywheel.workload import Workload

URGENT: JsonObject = {"messages": [], "reference": {"urgency": "urgent"}}
EXAMPLE = Path(__file__).parents[2] / "examples" / "triage" / "flywheel.yaml"


def check(operation: str = "eq", **fields: str) -> JsonObject:
    return {
        "type": "string_check",
        "operation": operation,
        "input": fields.get("input", "{{sample.output_text}}"),
        "reference": fields.get("reference", "{{item.reference.urgency}}"),
    }


@pytest.mark.parametrize(
    ("operation", "output", "score"),
    [
        ("eq", "urgent", 1.0),
        ("eq", "Urgent", 0.0),
        ("ne", "urgent", 0.0),
        ("ne", "routine", 1.0),
        ("like", "it is urgent!", 1.0),
        ("like", "it is URGENT!", 0.0),
        ("ilike", "it is URGENT!", 1.0),
        ("ilike", "urgen", 0.0),
    ],
)
def test_string_check_compares_input_with_reference(
    operation: str, output: str, score: float
) -> None:
    grader = build_graders({"c": check(operation)})["c"]
    assert grader.name == "c"
    assert grader.grade(output, URGENT).score == score


@pytest.mark.parametrize("operation", ["eq", "ne", "like", "ilike"])
@pytest.mark.parametrize("output", ["", "not json", '{"level": "urgent"}', "[1]"])
def test_an_output_without_the_field_is_a_wrong_answer(operation: str, output: str) -> None:
    grader = build_graders({"c": check(operation, input="{{sample.output_json.urgency}}")})["c"]
    result = grader.grade(output, URGENT)
    assert result.score == 0.0
    assert result.error_type is None
    assert result.detail


def test_an_item_without_the_reference_is_the_graders_failure_and_not_a_zero() -> None:
    grader = build_graders({"c": check(input="{{sample.output_json.urgency}}")})["c"]
    result = grader.grade("not json", {"messages": [], "reference": {}})
    assert result.score is None
    assert result.error_type == "missing_item_field"


def test_the_examples_graders_score_its_answers() -> None:
    graders = build_graders(Workload.load(EXAMPLE).graders)
    outputs = ['{"urgency": "urgent"}', '{"urgency": "routine"}', '{"urgency": "soon"}', "urgent"]
    scores = [
        tuple(graders[name].grade(output, URGENT).score for name in ("correct", "valid_json"))
        for output in outputs
    ]
    assert scores == [(1.0, 1.0), (0.0, 1.0), (0.0, 0.0), (0.0, 0.0)]


def test_text_similarity_scores_between_the_two_texts() -> None:
    spec = {**check(), "type": "text_similarity", "evaluation_metric": "fuzzy_match"}
    del spec["operation"]
    assert build_graders({"s": spec})["s"].grade("urgent", URGENT).score == 1.0
    assert build_graders({"s": spec})["s"].grade("", URGENT).score == 0.0


def multi(formula: str, **graders: JsonObject) -> JsonObject:
    return {"type": "multi", "graders": dict(graders), "calculate_output": formula}


def test_a_multi_grader_joins_its_parts_by_a_formula() -> None:
    """eq scores 1, ilike 1, ne 0: 0.25 x 1 + 0.5 x 1 + 0 = 0.75."""
    spec = multi("0.25*a + 0.5*b + c", a=check(), b=check("ilike"), c=check("ne"))
    assert build_graders({"m": spec})["m"].grade("urgent", URGENT).score == 0.75


def test_a_failed_part_fails_a_multi_grader_only_where_the_formula_uses_it() -> None:
    broken = check(reference="{{item.reference.absent}}")
    used = build_graders({"m": multi("a + b", a=check(), b=broken)})["m"].grade("urgent", URGENT)
    assert (used.score, used.error_type) == (None, "sub_grader_failed")
    unused = build_graders({"m": multi("a * 1", a=check(), b=broken)})["m"]
    assert unused.grade("urgent", URGENT).score == 1.0


def test_a_formula_that_divides_by_zero_is_a_failure_and_not_a_zero() -> None:
    grader = build_graders({"m": multi("1 / a", a=check())})["m"]
    result = grader.grade("routine", URGENT)
    assert (result.score, result.error_type) == (None, "calculation")


def schema(value: JsonObject) -> JsonObject:
    return {"type": "x-json_schema", "schema": value}


def test_json_schema_says_what_is_wrong() -> None:
    grader = build_graders({"j": schema({"type": "object", "required": ["urgency"]})})["j"]
    assert grader.grade('{"urgency": 1}', URGENT).score == 1.0
    result = grader.grade("{}", URGENT)
    assert result.score == 0.0
    assert "urgency" in (result.detail or "")
    assert grader.grade("[" * 100_000, URGENT).score == 0.0


def test_a_schema_that_refers_to_nothing_is_a_failure_and_not_a_zero() -> None:
    grader = build_graders({"j": schema({"$ref": "#/$defs/absent"})})["j"]
    result = grader.grade("{}", URGENT)
    assert (result.score, result.error_type) == (None, "schema")


def test_a_schema_never_reaches_for_the_network() -> None:
    with pytest.raises(ConfigError, match="only local references"):
        build_graders({"j": schema({"$ref": "https://example.com/schema.json"})})


def test_every_mistake_of_a_specification_is_listed_at_once() -> None:
    spec: dict[str, JsonObject] = {
        "a": {"type": "string_check", "operation": "equals", "input": "{{sample.text}}"},
        "b": {"type": "strng_check"},
        "c": {},
        "d": multi("x + e", e=check("is")),
        "f": schema({"type": "objekt"}),
        "g": {**check(), "weight": 1},
        "h": {"type": "text_similarity", "evaluation_metric": "bm25", "input": "", "reference": ""},
    }
    with pytest.raises(ConfigError) as caught:
        build_graders(spec, source="flywheel.yaml")
    text = str(caught.value)
    for expected in (
        "a.operation: Input should be 'eq', 'ne', 'like' or 'ilike' (found 'equals')",
        "a.reference: is required and missing",
        "a.input: unknown field {{sample.text}}",
        "b.type: no grader type 'strng_check'; valid: string_check, text_similarity",
        "c.type: is required and missing",
        "d.calculate_output: no sub-grader 'x'; valid: e",
        "d.graders.e.operation",
        "f.schema: not a JSON Schema",
        "g.weight: unknown key; valid: type, name, operation, input, reference",
        "h.evaluation_metric: no metric 'bm25'; valid: fuzzy_match",
    ):
        assert expected in text


def test_a_grader_of_a_later_version_is_recognised_and_refused() -> None:
    with pytest.raises(ConfigError, match="python comes with"):
        build_graders({"g": {"type": "python", "source": "raise SystemExit"}})


@pytest.mark.parametrize("kind", ["score_model", "label_model", "x-judge", "x-mlflow"])
def test_a_grader_that_waits_for_a_model_is_refused_where_nobody_may_wait(kind: str) -> None:
    with pytest.raises(ConfigError, match=f"g: {kind} waits for a model"):
        build_graders({"g": {"type": kind}})


@pytest.mark.parametrize("metric", ["cosine", "meteor"])
def test_a_metric_that_needs_more_than_the_texts_says_what(metric: str) -> None:
    spec = {**check(), "type": "text_similarity", "evaluation_metric": metric}
    del spec["operation"]
    with pytest.raises(ConfigError, match="needs"):
        build_graders({"g": spec})


def test_a_graders_hash_changes_with_what_it_does_and_not_with_the_order_of_keys() -> None:
    spec = check()
    assert grader_hash(spec) == grader_hash(dict(reversed(spec.items())))
    assert grader_hash(spec) != grader_hash(check("ne"))


def test_template_paths_finds_the_fields_of_sub_graders() -> None:
    assert template_paths(multi("a", a=check())) == {
        "sample.output_text",
        "item.reference.urgency",
    }
