"""Whether an answer is a Mermaid flowchart that never runs in a circle.

Source: Mermaid's flowchart syntax (https://mermaid.js.org/syntax/flowchart.html): the part of it
people draw processes with. Nodes with a shape and a text, links with or without arrow and text,
chains (`A --> B --> C`), several at once (`A & B --> C`), subgraphs, styles and comments. What it
does not know it refuses by line, rather than pass a chart nobody looked at.
"""

import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from flywheel.graders import code_grader
from flywheel.records import GradeResult, JsonObject

_FENCE = re.compile(r"```(?:mermaid)?[ \t]*\n(.*?)```", re.DOTALL)
_HEADER = re.compile(r"(?:flowchart|graph)(?:[ \t]+(?:TB|TD|BT|RL|LR))?[ \t]*;?")
_IGNORED = re.compile(
    r"(?:%%|subgraph\b|end\b|direction\b|style\b|classDef\b|class\b|linkStyle\b|click\b|accTitle|"
    r"accDescr).*"
)
_LINK = re.compile(
    r"\s*(?:<|[ox](?=[-=]))?"
    r"(?:(?P<opening>--|==|-\.)\s*(?P<text>[^-=.|>\n]+?)\s*(?:--+|==+|\.+-)[->xo]?>?"
    r"|-{2,}[->xo]|={2,}[=>xo]|-\.+->?|~{3,})"
    r"\s*(?:\|(?P<label>[^|]*)\|)?\s*"
)
_NODE = re.compile(
    r"(?P<id>\w+(?:[.-]\w+)*)(?:@\{[^}]*\})?"
    r"(?:\[[^\]]*\]+|\(+[^)]*\)+|\{+[^}]*\}+|>[^\]]*\])?(?::::?\w+)?"
)

_JOINT = re.compile(r"\s*&\s*")


@code_grader
def acyclic(output: str, item: JsonObject) -> GradeResult:
    """1 for a flowchart without a cycle; else 0, and what is wrong with it in words."""
    fenced = _FENCE.search(output)
    statements = list(_statements(fenced[1] if fenced else output))
    if not statements or not _HEADER.fullmatch(statements[0][1]):
        return GradeResult(score=0, detail="it does not begin with `flowchart TD` or another one")
    before: dict[str, set[str]] = {}
    for number, statement in statements[1:]:
        if _IGNORED.fullmatch(statement):
            continue
        chain = _chain(statement)
        if chain is None:
            return GradeResult(score=0, detail=f"line {number} is no flowchart: {statement}")
        for nodes in chain:
            before.update({node: set() for node in nodes if node not in before})
        for starts, ends in pairwise(chain):
            for end in ends:
                before[end].update(starts)
    if not before:
        return GradeResult(score=0, detail="it has no nodes")
    try:
        TopologicalSorter(before).prepare()
    except CycleError as error:
        return GradeResult(score=0, detail=f"it runs in a circle: {' --> '.join(error.args[1])}")
    return GradeResult(score=1)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each with the number of its line; several on a line are parted by semicolons."""
    for number, line in enumerate(text.strip().splitlines(), start=1):
        for part in line.split(";"):
            if part.strip():
                yield number, part.strip()


def _chain(statement: str) -> list[list[str]] | None:
    """`A --> B & C --> D` as [[A], [B, C], [D]]; None when it cannot be read to its end."""
    chain: list[list[str]] = []
    at = 0
    while True:
        nodes, at = _nodes(statement, at)
        if not nodes:
            return None
        chain.append(nodes)
        if at == len(statement):
            return chain
        link = _LINK.match(statement, at)
        if link is None:
            return None
        at = link.end()


def _nodes(statement: str, at: int) -> tuple[list[str], int]:
    """`A[text] & B` from a position: the names, and where they end; no names when it is neither."""
    names: list[str] = []
    while found := _NODE.match(statement, at):
        names.append(found["id"])
        joint = _JOINT.match(statement, found.end())
        if joint is None:
            return names, found.end()
        at = joint.end()
    return [], at
