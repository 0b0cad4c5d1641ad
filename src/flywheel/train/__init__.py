"""Training: a snapshot and a recipe in, a LoRA adapter out.

Input: a `TrainSpec` (`plan` makes it). Output: an adapter folder and its `Adapter` record
(`train`). SFT and DPO by TRL, LoRA by PEFT, in a process that can be killed and resumed; CUDA where
there is some, else the CPU, by the same code. See docs/training.md.
Command: `flywheel train --latest`.
"""

from flywheel.train.events import TrainProgress
from flywheel.train.process import train
from flywheel.train.spec import TrainSpec, plan

__all__ = [
    "TrainProgress",
    "TrainSpec",
    "plan",
    "train",
]
