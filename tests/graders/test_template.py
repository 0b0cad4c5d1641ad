import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.graders.template import Missing, NotJson, ParsedJson, parse_json, parse_template
from flywheel.records import JsonObject

ITEM: JsonObject = {
    "messages": [{"role": "user", "content": "My knee hurts."}],
    "reference": {"urgency": "routine", "flag": True, "none": None, "list": [1, {"a": "b"}]},
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("no field at all", "no field at all"),
        ("{{item.reference.urgency}}", "routine"),
        ("{{ item.messages[0].content }}", "My knee hurts."),
        ("{{item.messages.0.role}}", "user"),
        ("<{{sample.output_text}}>", '<{"urgency": "urgent", "n": 3}>'),
        ("{{sample.output_json.urgency}}/{{sample.output_json.n}}", "urgent/3"),
        ("{{item.reference.flag}}", "true"),
        ("{{item.reference.none}}", "null"),
        ("{{item.reference.list[1]}}", '{"a":"b"}'),
    ],
)
def test_a_template_is_filled_from_item_and_sample(template: str, expected: str) -> None:
    output = '{"urgency": "urgent", "n": 3}'
    assert parse_template(template).render(output, ITEM) == expected


def test_what_the_model_wrote_is_never_read_as_a_template() -> None:
    template = parse_template("{{sample.output_text}}")
    assert template.render("{{item.reference.urgency}}", ITEM) == "{{item.reference.urgency}}"


@pytest.mark.parametrize(
    ("template", "output", "side"),
    [
        ("{{item.reference.nope}}", "{}", "item"),
        ("{{item.messages[9].content}}", "{}", "item"),
        ("{{sample.output_json.urgency}}", "not json", "output"),
        ("{{sample.output_json.urgency}}", '{"other": 1}', "output"),
        ("{{sample.output_json.urgency}}", '```json\n{"urgency": "urgent"}\n```', "output"),
        ("{{sample.output_json.urgency}}", '["urgency"]', "output"),
    ],
)
def test_a_field_that_is_missing_says_on_whose_side(template: str, output: str, side: str) -> None:
    rendered = parse_template(template).render(output, ITEM)
    assert isinstance(rendered, Missing)
    assert rendered.side == side


def test_every_unknown_field_of_a_template_is_listed() -> None:
    with pytest.raises(ValueError, match="sample.text") as caught:
        parse_template("{{sample.text}} {{item}} {{item.a|tojson}} {{item.b")
    for name in ("{{sample.text}}", "{{item}}", "{{item.a|tojson}}", "never closed"):
        assert name in str(caught.value)


@pytest.mark.parametrize("text", ["", "NaN", "[" * 100_000, "1" * 10_000, '{"a": 1} trailing'])
def test_what_is_not_json_gives_a_reason_and_no_exception(text: str) -> None:
    assert isinstance(parse_json(text), NotJson)


def test_json_null_is_json() -> None:
    assert parse_json(" null ") == ParsedJson(None)


@given(st.text())
def test_any_template_parses_or_is_refused_with_a_sentence(text: str) -> None:
    try:
        parse_template(text)
    except ValueError as error:
        assert str(error)
