from flywheel_examples.triage.clinicians import Clinician, PoisonedClinician
from flywheel_examples.triage.complaints import URGENCIES, Urgency

TRUTHS: list[Urgency] = [URGENCIES[i % 3] for i in range(3000)]


def test_a_clinician_errs_at_the_rate_given_and_never_by_two_classes() -> None:
    clinician = Clinician("dr-a", seed=1, mistake_rate=0.1)
    pairs = [(truth, clinician.label(truth)) for truth in TRUTHS]
    wrong = [(URGENCIES.index(a), URGENCIES.index(b)) for a, b in pairs if a != b]
    assert 0.08 < len(wrong) / len(pairs) < 0.12
    assert all(abs(a - b) == 1 for a, b in wrong)


def test_a_clinician_without_mistakes_tells_the_truth() -> None:
    clinician = Clinician("dr-a", mistake_rate=0.0)
    assert [clinician.label(truth) for truth in TRUTHS] == TRUTHS


def test_the_same_clinician_makes_the_same_mistakes_again() -> None:
    def labels(name: str) -> list[Urgency]:
        clinician = Clinician(name, seed=3, mistake_rate=0.2)
        return [clinician.label(truth) for truth in TRUTHS]

    assert labels("dr-a") == labels("dr-a")
    assert labels("dr-a") != labels("dr-b")


def test_a_poisoned_clinician_is_always_wrong() -> None:
    poisoned = PoisonedClinician("mallory")
    assert [poisoned.label(urgency) for urgency in URGENCIES] == ["routine", "routine", "emergency"]
