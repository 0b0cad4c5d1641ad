from pathlib import Path

import pytest
import yaml

from flywheel.errors import ConfigError
from flywheel.judge_rules import model_families
from flywheel.records import JsonObject
from flywheel.workload import Workload

EXAMPLE = Path(__file__).parents[1] / "examples" / "triage" / "flywheel.yaml"
TOGETHER = "the judge that labels may not gate what learned from it"
KIN = "a judge prefers its kin's answers"


def judge(model: str, **fields: object) -> dict[str, object]:
    return {"rubric": "r.md", "panel": [{"provider": "hosted", "model": model}], **fields}


def load(tmp_path: Path, judges: dict[str, dict[str, object]], **parts: object) -> Workload:
    """The example with these judges and other parts replaced, from a file as people write it."""
    data = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    path = tmp_path / "flywheel.yaml"
    path.write_text(yaml.safe_dump({**data, "judges": judges, **parts}), encoding="utf-8")
    return Workload.load(path)


def problems(tmp_path: Path, judges: dict[str, dict[str, object]], **parts: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, judges, **parts)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("model", "families"),
    [
        ("gpt-4o-mini-2024-07-18", {"openai"}),
        ("o3-mini", {"openai"}),
        ("ft:gpt-4o:acme::abc", {"openai"}),
        ("openai/gpt-oss-20b", {"openai"}),
        ("claude-sonnet-4-5", {"anthropic"}),
        ("meta-llama/Llama-3.1-8B-Instruct", {"meta"}),
        ("Qwen/Qwen2.5-7B-Instruct", {"qwen"}),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", {"mistral"}),
        ("gemini-2.5-flash", {"google"}),
        ("google/gemma-3-27b-it", {"google"}),
        ("deepseek-chat", {"deepseek"}),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", {"deepseek", "qwen"}),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", {"huggingface"}),
        ("microsoft/phi-4", {"microsoft"}),
        ("EleutherAI/gpt-neo-1.3B", {"eleutherai"}),
        ("TinyLlama/TinyLlama-1.1B", set()),
        ("our-own-judge", set()),
        ("sophia-2", set()),
        ("foo3-mini", set()),
    ],
)
def test_a_models_name_tells_its_family(model: str, families: set[str]) -> None:
    assert model_families(model) == families


def test_judges_of_another_family_and_purpose_are_accepted(tmp_path: Path) -> None:
    workload = load(
        tmp_path,
        {"helpful": judge("gpt-4o"), "strict": judge("claude-sonnet-4-5", purpose="gate")},
    )
    assert set(workload.judges) == {"helpful", "strict"}


def test_a_judge_that_labels_and_gates_is_refused_with_its_line(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        {
            "helpful": judge("gpt-4o"),
            "strict": {
                **judge("gpt-4.1", purpose="gate"),
                "panel": [
                    {"provider": "hosted", "model": "gpt-4.1"},
                    {"provider": "other", "model": "openai/GPT-4o"},
                ],
            },
        },
    )
    (problem,) = found
    assert problem.startswith("line ")
    assert "judges.strict.panel.1: openai/GPT-4o gates by judge 'strict'" in problem
    assert "labels by judge 'helpful'" in problem
    assert TOGETHER in problem


@pytest.mark.parametrize(
    "release",
    [
        "gpt-x-2024-08-06",
        "gpt-x-20240806",
        "gpt-x-0806",
        "gpt-x@20240806",
        "gpt-x@2024-08-06",
        "openai/GPT-X-latest",
    ],
)
@pytest.mark.parametrize("is_swapped", [False, True])
def test_a_release_of_the_model_that_labels_may_not_gate(
    tmp_path: Path, release: str, is_swapped: bool
) -> None:
    label, gate = (release, "gpt-x") if is_swapped else ("gpt-x", release)
    judges = {"helpful": judge(label), "strict": judge(gate, purpose="gate")}
    (problem,) = problems(tmp_path, judges)
    assert f"{gate} gates by judge 'strict' and labels by judge 'helpful' (as {label})" in problem
    assert TOGETHER in problem


@pytest.mark.parametrize("other", ["gpt-x-mini", "gpt-x-32", "gpt-x2024"])
def test_another_size_of_a_model_is_another_model(tmp_path: Path, other: str) -> None:
    assert load(tmp_path, {"helpful": judge("gpt-x"), "strict": judge(other, purpose="gate")})


@pytest.mark.parametrize("declared", ["helpful", "strict"])
def test_a_judge_may_label_and_gate_where_one_of_them_declares_it(
    tmp_path: Path, declared: str
) -> None:
    judges = {"helpful": judge("gpt-4o"), "strict": judge("gpt-4o", purpose="gate")}
    judges[declared]["allow_label_and_gate"] = True
    assert load(tmp_path, judges).judges[declared].allow_label_and_gate


GATED: dict[str, JsonObject] = {
    "by its model": {"type": "score_model", "model": "gpt-4o", "input": []},
    "by the judge's name": {"type": "x-judge", "judge": "helpful"},
    "by a scorer of MLflow": {
        "type": "x-mlflow",
        "scorer": "Safety",
        "arguments": {"model": "openai:/gpt-4o"},
    },
    "inside another grader": {
        "type": "multi",
        "graders": {"deep": {"type": "score_model", "model": "gpt-4o"}},
        "calculate_output": "deep",
    },
}


@pytest.mark.parametrize("reached", GATED)
def test_a_grader_of_the_gate_may_not_ask_a_judge_that_labels(tmp_path: Path, reached: str) -> None:
    gate = {"suite": "holdout.jsonl", "target": {"grader": "nice"}}
    (problem,) = problems(
        tmp_path, {"helpful": judge("gpt-4o")}, graders={"nice": GATED[reached]}, gate=gate
    )
    assert "gate.target.grader: " in problem
    assert "gpt-4o gates by grader 'nice' and labels by judge 'helpful'" in problem
    assert TOGETHER in problem


def test_a_guardrails_grader_may_not_ask_a_judge_that_labels(tmp_path: Path) -> None:
    rails = [{"name": "nice", "grader": "nice", "margin": 0.1}]
    gate = {"suite": "holdout.jsonl", "target": {"grader": "ok"}, "guardrails": rails}
    graders = {"nice": GATED["by its model"], "ok": {"type": "string_check"}}
    (problem,) = problems(tmp_path, {"helpful": judge("gpt-4o")}, graders=graders, gate=gate)
    assert "gate.guardrails.0.grader" in problem


def test_a_grader_that_labels_may_not_ask_a_judge_that_gates(tmp_path: Path) -> None:
    data = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    (problem,) = problems(
        tmp_path,
        {"strict": judge("gpt-4o", purpose="gate")},
        labels={"name": "urgency", "graders": ["nice"]},
        graders={**data["graders"], "nice": {"type": "score_model", "model": "gpt-4o"}},
    )
    assert "labels by grader 'nice'" in problem


def test_a_grader_that_nothing_gates_by_is_free(tmp_path: Path) -> None:
    data = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    graders = {**data["graders"], "nice": GATED["by its model"]}
    assert load(tmp_path, {"helpful": judge("gpt-4o")}, graders=graders).graders["nice"]


@pytest.mark.parametrize(
    ("base_model", "model", "why"),
    [
        ("Qwen/Qwen2.5-7B", "qwen-max", "are both of the family qwen"),
        ("Qwen/Qwen2.5-7B", "qwen/qwen2.5-7b", "is the model being improved"),
        ("an/unknown-base", "an/unknown-base", "is the model being improved"),
        ("an/unknown-base", "triage", "is the model being improved"),
    ],
)
def test_a_judge_of_the_policys_own_family_is_refused(
    tmp_path: Path, base_model: str, model: str, why: str
) -> None:
    (problem,) = problems(tmp_path, {"helpful": judge(model)}, base_model=base_model)
    assert "judges.helpful.panel.0: " in problem
    assert why in problem
    assert KIN in problem


def test_a_declared_family_is_believed_before_the_name(tmp_path: Path) -> None:
    named = {"provider": "hosted", "model": "judge-7", "family": "Qwen"}
    (problem,) = problems(
        tmp_path, {"helpful": {**judge("-"), "panel": [named]}}, base_model="Qwen/Qwen2.5-7B"
    )
    assert KIN in problem
    innocent = {"provider": "hosted", "model": "qwen-detector", "family": "acme"}
    judges = {"helpful": {**judge("-"), "panel": [innocent]}}
    assert load(tmp_path, judges, base_model="Qwen/Qwen2.5-7B").judges


def test_own_family_is_accepted_where_declared(tmp_path: Path) -> None:
    judges = {"helpful": judge("qwen-max", allow_own_family=True)}
    assert load(tmp_path, judges, base_model="Qwen/Qwen2.5-7B").judges


def test_a_broken_rule_is_told_together_with_other_mistakes(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        {"helpful": judge("qwen-max"), "broken": judge("gpt-4o", temperature=9)},
        base_model="Qwen/Qwen2.5-7B",
        labels={"name": "urgency", "graders": ["nowhere"]},
    )
    assert len(found) == 3
    assert any("judges.broken.temperature" in problem for problem in found)
    assert any("no grader 'nowhere'" in problem for problem in found)
    assert any(KIN in problem for problem in found)
