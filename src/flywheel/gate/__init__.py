"""The gate: is the candidate better where it should be, and no worse anywhere that counts?

Input: two served models, a frozen suite, the `gate` section of `flywheel.yaml`. Output: a
`Decision`, PASS, FAIL or INCONCLUSIVE, with its evidence in the lake and in MLflow.
Command: `flywheel gate`.

What it does not prove: that the suite is like production, that a grader is right, or that a
difference too small to be seen in this many items is not there. docs/gate.md says more.
"""

from flywheel.gate.decide import decide
from flywheel.gate.evaluate import Contestant, EvalPair, Exam, evaluate, evaluate_pair
from flywheel.gate.run import run_gate
from flywheel.gate.suite import Suite, load_suite

__all__ = [
    "Contestant",
    "EvalPair",
    "Exam",
    "Suite",
    "decide",
    "evaluate",
    "evaluate_pair",
    "load_suite",
    "run_gate",
]
