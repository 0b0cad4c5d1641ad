from keyword import iskeyword

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.errors import ConfigError
from flywheel.graders import build_graders, from_openai, to_openai
from flywheel.records import JsonObject

# As OpenAI's reference writes a multi grader.
OPENAI: JsonObject = {
    "type": "multi",
    "name": "example multi grader",
    "graders": {
        "similar": {
            "name": "similar",
            "type": "text_similarity",
            "input": "The graded text",
            "reference": "{{item.reference.summary}}",
            "evaluation_metric": "rouge_l",
            "pass_threshold": 0.5,
        },
        "exact": {
            "name": "another name",
            "type": "string_check",
            "input": "{{sample.output_text}}",
            "reference": "{{item.reference.summary}}",
            "operation": "eq",
        },
    },
    "calculate_output": "0.5 * similar + 0.5 * exact",
}

NAMES = st.from_regex(r"[a-z]{1,5}", fullmatch=True).filter(lambda name: not iskeyword(name))
CHECKS = st.fixed_dictionaries(
    {
        "type": st.just("string_check"),
        "operation": st.sampled_from(["eq", "ne", "like", "ilike"]),
        "input": st.just("{{sample.output_text}}"),
        "reference": st.text(alphabet="abc", max_size=5),
    }
)
MULTIS = st.dictionaries(NAMES, CHECKS, min_size=1, max_size=3).map(
    lambda parts: {
        "type": "multi",
        "graders": parts,
        "calculate_output": " + ".join(sorted(parts)),
    }
)


def test_openai_json_survives_import_and_export() -> None:
    imported = from_openai(OPENAI)
    assert imported.name == "example multi grader"
    assert "name" not in imported.spec
    assert to_openai(imported.name, imported.spec) == OPENAI


def test_an_imported_grader_grades() -> None:
    imported = from_openai(OPENAI)
    grader = build_graders({imported.name: imported.spec})[imported.name]
    result = grader.grade("the graded text", {"reference": {"summary": "the graded text"}})
    assert result.score == 1.0


@given(NAMES, CHECKS | MULTIS)
def test_our_json_survives_export_and_import(name: str, spec: JsonObject) -> None:
    imported = from_openai(to_openai(name, spec))
    assert (imported.name, imported.spec) == (name, spec)
    build_graders({name: spec})


def test_a_grader_only_flywheel_has_is_not_exported() -> None:
    with pytest.raises(ConfigError, match="x-json_schema is Flywheel's own"):
        to_openai("valid", {"type": "x-json_schema", "schema": {}})


def test_an_openai_grader_without_a_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="name: is required"):
        from_openai({"type": "string_check"})
