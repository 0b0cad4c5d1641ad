"""The flowchart example's own check."""

import pytest

from flywheel_examples.flowchart.check import acyclic


@pytest.mark.parametrize(
    "text",
    [
        "flowchart TD\nA[Start] --> B{Fever?}\nB -->|yes| C(See a doctor)\nB -- no --> D[Rest]\n"
        "C & D --> E((End))",
        "graph LR; A --> B --> C; A --> C",
        "flowchart TD\nA-->B\nB-.->C\nC==>D\nsubgraph x\nD --> E\nend\n%% hi\nstyle A fill:#fff\n"
        "A -- some text --> F\nA -. dotted .-> G",
        "flowchart TD\nA\nB --> A",
        "Here it is:\n```mermaid\nflowchart TD\n  a1[Fever: 38.5] --> b-2[Call 112]\n```\nEnjoy.",
        "flowchart TD\nA[Is it bad?] -->|maybe: yes| B>flag]\nB:::red --- C[(db)]\n",
    ],
)
def test_a_flowchart_without_a_cycle_passes(text: str) -> None:
    assert acyclic(text, {}).score == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("graph LR; A --> B --> C; C --> A", "it runs in a circle: "),
        ("flowchart TD\nA --> A", "it runs in a circle: A --> A"),
        ("flowchart TD\nA & B --> C\nC -->|again| B", "it runs in a circle: "),
        ("flowchart TD\nA -> B", "line 2 is no flowchart: A -> B"),
        ("flowchart TD\nA[open --> B", "line 2 is no flowchart"),
        ("flowchart TD\n%% nothing", "it has no nodes"),
        ("I am sorry", "it does not begin with"),
        ("", "it does not begin with"),
    ],
)
def test_what_fails_is_told_in_words_a_model_can_use(text: str, why: str) -> None:
    result = acyclic(text, {})
    assert result.score == 0
    assert why in (result.detail or "")
