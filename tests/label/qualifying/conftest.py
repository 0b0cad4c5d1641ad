from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from flywheel.chat import OpenAIChatModel
from flywheel.label.judging import JudgeDesk, open_models
from flywheel.label.qualifying import read_gold
from flywheel.lake import Lake
from flywheel.tracking import Tracker
from flywheel.workload import Workload
from tests.label.qualifying.material import GOLD, gold_answers, judge_of, write_workload
from tests.label.qualifying.replay import ReplayEndpoint, Script

MakeDesk = Callable[..., JudgeDesk]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def tracker(tracking_uri: str) -> Tracker:
    return Tracker(tracking_uri)


@pytest.fixture
def endpoint() -> Iterator[ReplayEndpoint]:
    """A judge that gives every gold item of the example its gold label."""
    server = ReplayEndpoint(knows_the_gold()).start()
    yield server
    server.stop()


@pytest.fixture
def workload(tmp_path: Path, endpoint: ReplayEndpoint) -> Workload:
    return write_workload(tmp_path, endpoint.base_url)


@pytest.fixture
async def desk(tmp_path: Path, lake: Lake) -> AsyncIterator[MakeDesk]:
    """A desk for a workload's judge; its connections are closed at the end."""
    opened: list[OpenAIChatModel] = []

    def make(workload: Workload, name: str = "better") -> JudgeDesk:
        models = open_models(workload)
        opened.extend(models.values())
        return JudgeDesk(lake, workload, judge_of(workload, name), models, tmp_path / "cache")

    yield make
    for model in opened:
        await model.close()


def knows_the_gold() -> Script:
    answers = {
        key: label
        for name, file in (("better", "better_answer.jsonl"), ("good", "safe_advice.jsonl"))
        for key, label in gold_answers(read_gold(GOLD / file, judge_of(_declared(), name))).items()
    }
    return lambda shown: answers[shown.question, shown.answers]


def _declared() -> Workload:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return write_workload(Path(folder))
