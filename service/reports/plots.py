"""Plots as inline SVG: no script, no style sheet, nothing to fetch. All text is escaped, and has the colour of the
page's own; lines have one that stands out on light and on dark.
"""

from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT = 640, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 12, 12, 28


def line(points: Sequence[tuple[float, float]], label: str, *, width: int = _WIDTH, height: int = _HEIGHT) -> str:
    """A curve. points: (x, y), by x; two or more, else there is nothing to see and the text says so."""
    if len(points) < 2:
        return f"<p>{escape(label)}: fewer than two points.</p>"
    xs, ys = [x for x, _ in points], [y for _, y in points]
    (x0, x1), (y0, y1) = _range(xs), _range(ys)
    path = " ".join(
        f"{'L' if place else 'M'}{_at(x, x0, x1, _LEFT, width - _RIGHT):.1f} "
        f"{_at(y, y0, y1, height - _BOTTOM, _TOP):.1f}"
        for place, (x, y) in enumerate(points)
    )
    marks = (
        _text(_LEFT - 6, _TOP + 10, f"{y1:.4g}", "end")
        + _text(_LEFT - 6, height - _BOTTOM, f"{y0:.4g}", "end")
        + _text(_LEFT, height - 8, f"{x0:g}", "start")
        + _text(width - _RIGHT, height - 8, f"step {x1:g}", "end")
    )
    frame = f'<path d="M{_LEFT} {_TOP} V{height - _BOTTOM} H{width - _RIGHT}" fill="none" stroke="#888"/>'
    curve = f'<path d="{path}" fill="none" stroke="#4a86e8" stroke-width="1.6"/>'
    return _svg(width, height, label, frame + curve + marks)


def intervals(rows: Sequence[tuple[str, float, float, float]], label: str, *, width: int = _WIDTH) -> str:
    """Estimates with their intervals on 0 to 1, one under the other, 0.5 marked. rows: (name, estimate, low, high)."""
    left, row_height = 220, 26
    height = row_height * len(rows) + 34
    inside = (
        f'<path d="M{_at(0.5, 0, 1, left, width - 60):.1f} 4 V{height - 24}" stroke="#888" stroke-dasharray="4 3"/>'
    )
    for place, (name, estimate, low, high) in enumerate(rows):
        y = row_height * place + 18
        x0, x, x1 = (_at(value, 0, 1, left, width - 60) for value in (low, estimate, high))
        shown = name if len(name) <= 32 else f"{name[:31]}…"
        inside += (
            _text(left - 10, y + 4, shown, "end")
            + f'<path d="M{x0:.1f} {y} H{x1:.1f}" stroke="#4a86e8" stroke-width="2"/>'
            + f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="#4a86e8"/>'
            + _text(width - 52, y + 4, f"{estimate:.1%}", "start")
        )
    for value in (0.0, 0.5, 1.0):
        inside += _text(_at(value, 0, 1, left, width - 60), height - 8, f"{value:.0%}", "middle")
    return _svg(width, height, label, inside)


def _svg(width: int, height: int, label: str, inside: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(label)}" font-family="system-ui, sans-serif" font-size="12">{inside}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    colour = 'fill="currentColor" fill-opacity="0.8"'
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {colour}>{escape(text)}</text>'


def _at(value: float, low: float, high: float, start: float, end: float) -> float:
    return start + (end - start) * ((value - low) / (high - low) if high > low else 0.5)


def _range(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)
