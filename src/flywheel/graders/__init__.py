"""Graders: one definition of "right" for labels, rewards and gates.

Input: OpenAI grader JSON by name (`graders` in `flywheel.yaml`). Output: objects that score one
output. Command: `flywheel label grade` runs them over captured traffic; the gate runs them over its
suite.

What they do not do: nothing here runs code that came in a specification. A function a
specification names is code of the deployment, and says of itself that it is a grader. Graders that
ask a model are built only for those who say whose providers may be asked: the gate.
"""

from flywheel.graders.build import build_graders, grader_hash, pin_graders, template_paths
from flywheel.graders.function import code_grader
from flywheel.graders.grader import Grader
from flywheel.graders.portable import from_openai, to_openai

__all__ = [
    "Grader",
    "build_graders",
    "code_grader",
    "from_openai",
    "grader_hash",
    "pin_graders",
    "template_paths",
    "to_openai",
]
