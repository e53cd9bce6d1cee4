"""Charts as inline SVG, without a library; in the reader's colours, light or dark."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from html import escape
from typing import Mapping, Sequence

_WIDTH, _HEIGHT = 720, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 150, 28, 40
# Eight hues that differ for most kinds of colour blindness (Okabe and Ito, 2008), the black one left out.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#999999", "#b8a800")


@dataclass(frozen=True)
class Picture:
    """An SVG. Notebooks show it; `save` writes it."""

    svg: str

    def _repr_html_(self) -> str:
        return self.svg

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the SVG to a file."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.svg)


def line_chart(
    title: str, series: Mapping[str, Sequence[tuple[float, float]]], x_label: str, log: bool = True
) -> Picture:
    """Lines by name, each of points (x, y). log: y on a logarithmic scale, where values that are not positive are left
    out."""
    usable = {
        name: [(x, y) for x, y in points if math.isfinite(y) and (y > 0 or not log)] for name, points in series.items()
    }
    usable = {name: points for name, points in usable.items() if points}
    if not usable:
        return _framed(title, [_text(_WIDTH / 2, _HEIGHT / 2, "nothing to draw", "middle")])
    xs = [x for points in usable.values() for x, _ in points]
    ys = [y for points in usable.values() for _, y in points]
    low_x, high_x = min(xs), max(xs)
    low_y, high_y = min(ys), max(ys)
    ticks = _decades(low_y, high_y) if log else _steps(min(low_y, 0.0), high_y)
    low_y, high_y = min(ticks[0], low_y), max(ticks[-1], high_y)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - low_x) / (high_x - low_x) if high_x > low_x else 0.5
        scale = math.log10 if log else float
        up = (scale(y) - scale(low_y)) / (scale(high_y) - scale(low_y)) if high_y > low_y else 0.5
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    parts = []
    for tick in ticks:
        _, y = place(low_x, tick)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" opacity=".2"/>'
        )
        parts.append(_text(_LEFT - 6, y + 4, f"{tick:.3g}", "end"))
    for x in sorted({low_x, high_x}):
        parts.append(_text(place(x, low_y)[0], _HEIGHT - _BOTTOM + 16, f"{x:g}", "middle"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, x_label, "middle"))
    for number, (name, points) in enumerate(usable.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        dashes = ' stroke-dasharray="5 3"' if number >= len(_COLOURS) else ""
        placed = [place(x, y) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"{dashes}/>')
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2"/>' for x, y in placed)
        parts.append(f'<g fill="{colour}">{dots}</g>')
        y = _TOP + 14 * number
        key = f'x1="{_WIDTH - _RIGHT + 8}" x2="{_WIDTH - _RIGHT + 26}" y1="{y}" y2="{y}"'
        parts.append(f'<line {key} stroke="{colour}" stroke-width="2"{dashes}/>')
        parts.append(_text(_WIDTH - _RIGHT + 31, y + 4, name, "start"))
    return _framed(title, parts)


def bar_chart(title: str, values: Mapping[str, float], unit: str) -> Picture:
    """A bar for each name, the largest first."""
    rows = sorted(((name, value) for name, value in values.items() if value > 0), key=lambda row: -row[1])
    height = _TOP + 22 * max(len(rows), 1) + 8
    largest = rows[0][1] if rows else 1.0
    parts = []
    for number, (name, value) in enumerate(rows):
        y = _TOP + 22 * number
        length = (_WIDTH - 320) * value / largest
        parts.append(_text(190, y + 13, name, "end"))
        parts.append(f'<rect x="198" y="{y}" width="{length:.1f}" height="16" fill="{_COLOURS[0]}"/>')
        parts.append(_text(204 + length, y + 13, f"{value:.3g} {unit}", "start"))
    return _framed(title, parts, height)


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Two columns in HTML: what, and its value."""
    cells = "".join(
        f'<tr><td style="text-align:left">{escape(name)}</td><td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in rows
    )
    return f"<table>{cells}</table>"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _framed(title: str, parts: Sequence[str], height: int = _HEIGHT) -> Picture:
    return Picture(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'style="max-width:{_WIDTH}px;width:100%" '
        f'font-family="sans-serif" font-size="12" role="img" aria-label="{escape(title)}"><g fill="currentColor">'
        + _text(_LEFT, 16, title, "start")
        + "".join(parts)
        + "</g></svg>"
    )


def _decades(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic scale: powers of ten that enclose the values, with 2 and 5 between few of them."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 2 else (1,)
    ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    lowest = max([tick for tick in ticks if tick <= low], default=ticks[0])
    highest = min([tick for tick in ticks if tick >= high], default=ticks[-1])
    return [tick for tick in ticks if lowest <= tick <= highest]


def _steps(low: float, high: float) -> list[float]:
    """Ticks of a linear scale: five at most, at 1, 2 or 5 times a power of ten."""
    if high <= low:
        return [low]
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.floor(low / step)
    return [step * number for number in range(first, math.ceil(high / step) + 1)]
