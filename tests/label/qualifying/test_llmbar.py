"""Judges recorded by LLMBar (Zeng et al. 2024), on data nobody here wrote, by the real path."""

import asyncio
import sys
from pathlib import Path

import pytest

from flywheel.label.judging import JudgeDesk, open_models
from flywheel.label.qualifying import GoldItem, QualificationReport, qualify
from flywheel.lake import Lake
from flywheel.tracking import Tracker
from flywheel.workload import Workload
from tests.label.qualifying.material import judge_of, write_workload
from tests.label.qualifying.replay import ReplayEndpoint, read_llmbar, replaying

SETS = ("Natural", "Adversarial/Neighbor")
JUDGES = {"GPT-4": "gpt-4-0613", "ChatGPT": "gpt-3.5-turbo-0613"}


def gold_of(folder: Path) -> list[GoldItem]:
    return [
        GoldItem.model_validate(
            {
                "item_id": f"{folder.name}-{number}",
                "messages": row.question,
                "responses": list(row.outputs),
                "label": row.gold,
            }
        )
        for number, row in enumerate(read_llmbar(folder, "GPT-4"))
    ]


def measure(
    workload: Workload, gold: list[GoldItem], lake: Lake, tracker: Tracker, folder: Path
) -> QualificationReport:
    async def measured() -> QualificationReport:
        models = open_models(workload)
        desk = JudgeDesk(lake, workload, judge_of(workload), models, folder)
        try:
            return await qualify(desk, gold, tracker=tracker)
        finally:
            for model in models.values():
                await model.close()

    return asyncio.run(measured())


def row_of(name: str, judge: str, report: QualificationReport) -> str:
    found, accuracy = report.qualification, report.accuracy
    assert accuracy is not None
    cells = [
        "not measured"
        if one.value is None
        else f"{one.value:.2f} ({one.low:.2f} to {one.high:.2f})"
        for one in found.measures
    ]
    right = f"{accuracy.mean:.2f}"
    verdict = "yes" if found.qualified else "no"
    return " | ".join(["", name, judge, str(found.items), right, *cells, verdict, ""]).strip()


@pytest.mark.slow
def test_gpt_4_qualifies_on_natural_and_chatgpt_does_not_on_neighbor(
    shared_data: Path,
    tmp_path: Path,
    lake: Lake,
    tracker: Tracker,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Swap consistency .95/.71 and .93/.72; accuracy is of pairs right in both orders."""
    reports, rows = {}, []
    for name in SETS:
        folder = shared_data / "llmbar" / name
        recordings = {model: read_llmbar(folder, judge) for judge, model in JUDGES.items()}
        server = ReplayEndpoint(replaying(recordings)).start()
        try:
            for judge, model in JUDGES.items():
                seat = {"provider": "hosted", "model": model}
                workload = write_workload(tmp_path, server.base_url, panel=[seat])
                report = measure(workload, gold_of(folder), lake, tracker, tmp_path / "cache")
                reports[name, judge] = report
                rows.append(row_of(name, judge, report))
        finally:
            server.stop()
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(rows) + "\n")

    assert {key: report.qualification.qualified for key, report in reports.items()} == {
        ("Natural", "GPT-4"): True,
        ("Natural", "ChatGPT"): False,
        ("Adversarial/Neighbor", "GPT-4"): False,
        ("Adversarial/Neighbor", "ChatGPT"): False,
    }
    values = {
        key: {one.name: one.value for one in report.qualification.measures}
        for key, report in reports.items()
    }
    assert values["Natural", "GPT-4"]["swap_consistency"] == pytest.approx(0.95)
    assert values["Natural", "GPT-4"]["kappa"] == pytest.approx(0.864, abs=5e-4)
    assert values["Natural", "ChatGPT"]["swap_consistency"] == pytest.approx(0.71)
    falls_for_length = values["Adversarial/Neighbor", "GPT-4"]
    assert falls_for_length["swap_consistency"] == pytest.approx(125 / 134)
    assert falls_for_length["length_bias"] == pytest.approx(0.183, abs=5e-4)
    neighbor = reports["Adversarial/Neighbor", "ChatGPT"]
    assert len(neighbor.qualification.reasons) == 3, "kappa, order and length, all of them"
    assert neighbor.accuracy is not None
    assert neighbor.accuracy.mean == pytest.approx(7 / 134), "swapping alone would not have told"
