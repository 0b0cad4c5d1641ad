"""Three charts as inline SVG: intervals side by side, a line over weeks, a matrix. Pure strings."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import NamedTuple

LABEL, WIDTH, ROW = 270, 460, 26
"""Pixels: of the labels left of a chart, of the chart, of a row."""


class Mark(NamedTuple):
    """An estimate with its interval, and what it is of."""

    label: str
    value: float | None
    low: float | None
    high: float | None
    note: str = ""


def intervals(marks: Sequence[Mark], *, lowest: float = 0.0, title: str) -> str:
    """A row a mark: point and interval on one scale, the number beside it.

    Args:
        marks: What is drawn; one without a value shows its note instead.
        lowest: Left end of the scale; further left where a mark lies there. The right end is 1.
        title: Read aloud in place of the drawing.
    """
    ends = [end for mark in marks for end in (mark.low, mark.value) if end is not None]
    left = max(-1.0, min([lowest, *ends]))
    height = ROW * len(marks) + 34

    def x(value: float) -> float:
        return LABEL + WIDTH * (max(left, value) - left) / (1 - left)

    parts = [
        f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="4" y2="{height - 26}"/>'
        f'<text class="tick" x="{x(tick):.1f}" y="{height - 10}">{tick:g}</text>'
        for tick in _ticks(left)
    ]
    for row, mark in enumerate(marks):
        y = 4 + ROW * (row + 0.5)
        parts.append(
            f'<text class="label" x="{LABEL - 12}" y="{y + 4:.1f}">{_cut(mark.label)}</text>'
        )
        if mark.value is None:
            parts.append(
                f'<text class="note" x="{LABEL + 6}" y="{y + 4:.1f}">{escape(mark.note)}</text>'
            )
            continue
        if mark.low is not None and mark.high is not None:
            parts.append(
                f'<line class="bar" x1="{x(mark.low):.1f}" x2="{x(mark.high):.1f}" '
                f'y1="{y:.1f}" y2="{y:.1f}"/>'
            )
        parts.append(f'<circle class="dot" cx="{x(mark.value):.1f}" cy="{y:.1f}" r="4.5"/>')
        parts.append(
            f'<text class="value" x="{LABEL + WIDTH + 14}" y="{y + 4:.1f}">{told(mark)}</text>'
        )
    return _svg(parts, height, title)


def weeks(lines: Mapping[str, Sequence[Mark]], *, title: str) -> str:
    """A line for each name over weeks, its interval as a band; weeks are the marks' labels.

    Weeks without a value interrupt the line.
    """
    axis = sorted({mark.label for marks in lines.values() for mark in marks})
    ends = [end for marks in lines.values() for m in marks for end in (m.low, m.value)]
    bottom = max(-1.0, min([0.0, *(end for end in ends if end is not None)]))
    top, base = 10.0, 190.0

    def at(label: str, value: float | None) -> tuple[float, float]:
        height = (max(bottom, value or 0.0) - bottom) / (1 - bottom)
        return 60 + 640 * (axis.index(label) + 0.5) / len(axis), base - (base - top) * height

    parts = [
        f'<line class="grid" x1="60" x2="700" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="label" x="50" y="{y + 4:.1f}">{tick:g}</text>'
        for tick in _ticks(bottom)
        for _, y in [at(axis[0], tick)]
    ]
    parts += [
        f'<text class="tick" x="{at(label, 0)[0]:.1f}" y="{base + 18}">{escape(label)}</text>'
        for label in axis[:: max(1, len(axis) // 10)]
    ]
    for number, (name, marks) in enumerate(lines.items()):
        for part in _runs(axis, marks):
            parts += _line(name, f"c{number % 6}", part, at)
    parts += _legend(list(lines), base + 42)
    return _svg(parts, int(base + 52 + 18 * ((len(lines) - 1) // 4 + 1)), title)


def _line(
    name: str,
    shade: str,
    part: Sequence[Mark],
    at: Callable[[str, float | None], tuple[float, float]],
) -> list[str]:
    """Neighbouring weeks: their band, their line, and a dot each that tells its numbers."""
    lows = [at(m.label, m.value if m.low is None else m.low) for m in part]
    highs = [at(m.label, m.value if m.high is None else m.high) for m in part]
    middle = [at(m.label, m.value) for m in part]
    return [
        f'<polygon class="band {shade}" points="{_points([*lows, *reversed(highs)])}"/>',
        f'<polyline class="line {shade}" points="{_points(middle)}"/>',
        *(
            f'<line class="whisker {shade}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" '
            f'y2="{high:.1f}"/><circle class="spot {shade}" cx="{x:.1f}" cy="{y:.1f}" r="3.5">'
            f"<title>{escape(f'{name} {mark.label}: {told(mark)} {mark.note}')}</title></circle>"
            for (x, y), (_, low), (_, high), mark in zip(middle, lows, highs, part, strict=True)
        ),
    ]


def matrix(names: Sequence[str], cells: dict[tuple[str, str], Mark], *, title: str) -> str:
    """A square for each two names, the darker the higher; the number in it."""
    size, left, top = 64, 150, 30
    parts = []
    for row, first in enumerate(names):
        y = top + size * row
        parts.append(
            f'<text class="label" x="{left - 10}" y="{y + size / 2 + 4}">{_cut(first, 18)}</text>'
        )
        middle = left + size * (row + 0.5)
        parts.append(f'<text class="tick" x="{middle}" y="{top - 10}">{_cut(first, 9)}</text>')
        for column, second in enumerate(names):
            mark = cells.get((first, second)) or cells.get((second, first))
            if mark is None:
                continue
            x, known = left + size * column, mark.value is not None
            shade = max(0.0, mark.value or 0.0)
            ink = "on" if shade > 0.55 else "off"
            parts.append(
                f'<rect class="cell" x="{x}" y="{y}" width="{size - 2}" height="{size - 2}" '
                f'fill-opacity="{shade:.2f}">'
                f"<title>{escape(f'{first} and {second}: {told(mark)} {mark.note}')}</title></rect>"
                f'<text class="tick {ink}" x="{x + size / 2 - 1}" y="{y + size / 2 + 4}">'
                f"{f'{mark.value:.2f}' if known else '–'}</text>"
            )
    return _svg(parts, top + size * len(names) + 6, title)


def told(mark: Mark) -> str:
    """`0.861 [0.836, 0.885]`, or why not."""
    if mark.value is None:
        return mark.note
    if mark.low is None or mark.high is None:
        return f"{mark.value:.3f}"
    return f"{mark.value:.3f} [{mark.low:.3f}, {mark.high:.3f}]"


def _runs(axis: Sequence[str], marks: Sequence[Mark]) -> list[list[Mark]]:
    """Stretches of neighbouring weeks that all have a value."""
    runs: list[list[Mark]] = []
    known = {mark.label: mark for mark in marks if mark.value is not None}
    for label in axis:
        if (
            label in known
            and runs
            and runs[-1]
            and axis.index(runs[-1][-1].label) + 1 == axis.index(label)
        ):
            runs[-1].append(known[label])
        elif label in known:
            runs.append([known[label]])
    return runs


def _legend(names: Sequence[str], y: float) -> list[str]:
    return [
        f'<rect class="key c{at % 6}" x="{60 + 165 * (at % 4)}" y="{y - 9 + 18 * (at // 4)}" '
        f'width="10" height="10"/><text class="name" x="{76 + 165 * (at % 4)}" '
        f'y="{y + 18 * (at // 4)}">{_cut(name, 22)}</text>'
        for at, name in enumerate(names)
    ]


def _ticks(lowest: float) -> list[float]:
    return [tick for tick in (-1, -0.75, -0.5, -0.25, 0, 0.2, 0.4, 0.6, 0.8, 1) if tick >= lowest]


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _cut(text: str, longest: int = 38) -> str:
    return escape(text if len(text) <= longest else f"{text[: longest - 1]}…")


def _svg(parts: Sequence[str], height: float, title: str) -> str:
    width = LABEL + WIDTH + 170
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
