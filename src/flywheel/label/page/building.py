"""The template, the style, the script and the items, packed into one file."""

import base64
import hashlib
import json
from html import escape
from importlib.resources import files
from pathlib import Path

from flywheel.errors import ConfigError
from flywheel.label.exchange.annotation import Question
from flywheel.label.exchange.items import Item, plain_text
from flywheel.records import JsonObject, Record

_PREFERENCES = {
    "A": ("first", "First is better"),
    "B": ("second", "Second is better"),
    "tie": ("tie", "Equally good"),
    "both_bad": ("both_bad", "Both unacceptable"),
    "cannot_judge": ("cannot_judge", "Cannot judge"),
}


class PageSpec(Record):
    """What goes into a page."""

    workload: str
    items: tuple[Item, ...]
    """All single answers, or all pairs; the name of each does not matter."""
    questions: tuple[Question, ...]
    """Asked of every item; a preference where the items are pairs."""
    rater: str | None = None
    """Who will review; the page asks where it is not given."""
    columns: dict[str, str] = {}
    """Further columns every row gets, as `guideline`."""


def build_page(spec: PageSpec) -> str:
    """The page as one HTML text.

    Raises:
        ConfigError: there is nothing to review.
    """
    if not spec.items:
        problem = (
            "there is nothing to review: every captured answer has been judged by them, or none "
            "was captured. `flywheel label summary` tells"
        )
        raise ConfigError(spec.workload, [problem])
    folder = files("flywheel.label.page")
    style, script, template = (
        (folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js", "page.html")
    )
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": policy,
        "title": escape(f"Review: {spec.workload}"),
        "style": style,
        "script": script,
        "data": embedded_json(_data(spec)),
    }
    # Split at the marks, so that a mark inside a patient's message stays what it is.
    out: list[str] = []
    for piece in template.split("{{"):
        name, closed, rest = piece.partition("}}")
        out.append(parts[name] + rest if closed else piece)
    return "".join(out)


def write_page(spec: PageSpec, path: Path) -> None:
    """Builds the page and writes it, complete or not at all.

    Raises:
        ConfigError: there is nothing to review.
    """
    text = build_page(spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def embedded_json(value: JsonObject) -> str:
    """JSON that can stand in a script element: no `</script>`, no `<!--`, no odd line ends."""
    text = json.dumps(value, ensure_ascii=False)
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    # Half a surrogate pair is no UTF-8; it came escaped, and goes escaped.
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _data(spec: PageSpec) -> JsonObject:
    content: JsonObject = {
        "workload": spec.workload,
        "questions": [_question(question) for question in spec.questions],
        "items": [_item(item) for item in spec.items],
    }
    told = json.dumps(content, sort_keys=True).encode()
    page = hashlib.sha256(told).hexdigest()[:12]
    return {**content, "page": page, "rater": spec.rater, "columns": {**spec.columns}}


def _question(question: Question) -> JsonObject:
    options = {option: (option, option) for option in question.options}
    if question.kind == "pass_fail":
        options = {"pass": ("pass", "Pass"), "fail": ("fail", "Fail")}
    elif question.kind == "preference":
        options = _PREFERENCES
    return {
        "name": question.name,
        "kind": question.kind,
        "options": [{"id": name, "text": text} for name, text in options.values()],
    }


def _item(item: Item) -> JsonObject:
    """What a rater sees of an item; nothing that tells which model answered."""
    shown: JsonObject = {
        "messages": [{"role": one.role, "text": plain_text(one)} for one in item.messages],
        "responses": [plain_text(one) for one in item.responses],
    }
    if item.pair_ids is not None:
        return {"pair": list(item.pair_ids), **shown}
    return {"id": item.interaction_id, **shown}
