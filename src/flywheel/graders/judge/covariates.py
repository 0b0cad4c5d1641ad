"""What is measured of the judged answers beside the verdict: length, format, signs of injection.

A judge that likes long answers or lists is not corrected here: the longer clinical summary often is
the better one. The numbers are recorded, so that bias can be measured and a win rate be controlled
for length.
"""

import re

from flywheel.graders.judge.prompt import message_text
from flywheel.graders.judge.suspicion import find_suspicions
from flywheel.graders.judge.task import JudgeTask
from flywheel.graders.template import ParsedJson, parse_json
from flywheel.records import JsonObject

_LIST = re.compile(r"^\s{0,6}(?:[-*+•]|\d{1,3}[.)])\s", re.MULTILINE)
_HEADING = re.compile(r"^\s{0,3}#{1,6}\s", re.MULTILINE)
_EMPHASIS = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
_CODE = re.compile(r"^\s{0,3}```|`[^`\n]+`", re.MULTILINE)
_TABLE = re.compile(r"^\s{0,3}\|.+\|\s*$", re.MULTILINE)


def task_covariates(task: JudgeTask) -> JsonObject:
    """Of each answer its length and format, and what is suspicious in any text.

    `response` for one answer; `response_a` and `response_b`, A being the task's first, for two.
    """
    names = ("response",) if len(task.responses) == 1 else ("response_a", "response_b")
    answers = {n: message_text(m) for n, m in zip(names, task.responses, strict=True)}
    asked = {"messages": "\n".join(map(message_text, task.messages))}
    described: JsonObject = {name: text_covariates(text) for name, text in answers.items()}
    suspicious: JsonObject = {"suspicious": [*find_suspicions({**answers, **asked})]}
    return {**described, "has_reference": task.reference is not None, **suspicious}


def text_covariates(text: str) -> JsonObject:
    """Length in characters and words, and what the text is formatted with."""
    has_list, has_code = bool(_LIST.search(text)), bool(_CODE.search(text))
    has_table = bool(_TABLE.search(text))
    is_marked = bool(_HEADING.search(text) or _EMPHASIS.search(text))
    return {
        "characters": len(text),
        "words": len(text.split()),
        "has_list": has_list,
        "has_code": has_code,
        "has_table": has_table,
        "has_markdown": has_list or has_code or has_table or is_marked,
        "has_json": text.lstrip()[:1] in ("{", "[") and isinstance(parse_json(text), ParsedJson),
    }
