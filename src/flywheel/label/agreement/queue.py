"""`flywheel label disagreements`: what waits for adjudication, by the view `adjudication_queue`."""

from flywheel.lake import Lake
from flywheel.records import Record, UtcDatetime


class Opinion(Record):
    """What one expert said of an item in disagreement."""

    rater: str
    answer: str
    round: str | None
    guideline: str | None
    rationale: str | None
    created_at: UtcDatetime


class Disagreement(Record):
    """An item whose experts differ, and that no adjudication has settled."""

    item: str
    is_pair: bool
    interaction_id: str | None
    pair_ids: tuple[str, str] | None
    """A has the smaller id, whichever way round a rater saw them."""
    name: str
    raters: int
    agreement: float
    has_majority: bool
    """A majority is a label all the same; without one there is none."""
    opinions: tuple[Opinion, ...]
    first_at: UtcDatetime
    last_at: UtcDatetime

    @property
    def told(self) -> str:
        """Who said what, on one line; of a pair, A is the first of `pair_ids`."""
        return "; ".join(
            f"{said.rater or '(no name)'}: {self._short(said.answer)}" for said in self.opinions
        )

    def _short(self, answer: str) -> str:
        kind, _, said = answer.partition(" ")
        if kind == "prefers" and self.pair_ids:
            return "AB"[self.pair_ids.index(said)]
        return f"{float(said):g}" if kind == "value" else said


_QUEUE = """
SELECT * EXCLUDE (workload) FROM adjudication_queue
WHERE workload = $1 AND ($2::VARCHAR IS NULL OR name = $2)
ORDER BY has_majority, agreement, first_at, item, name
LIMIT $3
"""


def list_disagreements(
    lake: Lake, workload: str, name: str | None = None, *, limit: int | None = None
) -> list[Disagreement]:
    """Items that wait for adjudication, those without a majority first."""
    rows = lake.query(_QUEUE, [workload, name, limit]).to_pylist()
    return [Disagreement.model_validate(row) for row in rows]
