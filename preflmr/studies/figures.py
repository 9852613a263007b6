"""Line charts and radar charts as SVG, with nothing but the standard library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2", "#7f7f7f")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 400, 70, 160, 36, 50
Points = Sequence[tuple[float, float]]


def lines(
    series: Mapping[str, Points], *, title: str, x: str, y: str, logarithmic: bool = False, zero: bool = False
) -> str:
    """A line for each series, whose points are (x, y).

    Args:
        x, y: what the axes show.
        logarithmic: of x.
        zero: whether the line y = 0 is drawn.

    Raises:
        ValueError: there is no point.
    """
    points = [point for some in series.values() for point in some]
    if not points:
        raise ValueError("series must hold at least one point, got none")
    place = math.log10 if logarithmic else float
    across = _Axis([place(one[0]) for one in points], LEFT, WIDTH - RIGHT)
    up = _Axis([one[1] for one in points] + ([0.0] if zero else []), HEIGHT - BOTTOM, TOP)
    drawn = [_text(WIDTH / 2 - RIGHT / 2, 20, title, "middle", 14)]
    drawn += [_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x, "middle"), _text(14, TOP - 14, y, "start")]
    for value in up.ticks():
        drawn.append(_line(LEFT, up(value), WIDTH - RIGHT, up(value), "#dddddd"))
        drawn.append(_text(LEFT - 6, up(value) + 4, f"{value:.4g}", "end"))
    for value in sorted({one[0] for one in points}):
        drawn.append(_text(across(place(value)), HEIGHT - BOTTOM + 18, _short(value), "middle"))
    if zero:
        drawn.append(_line(LEFT, up(0.0), WIDTH - RIGHT, up(0.0), "#333333"))
    for number, (name, some) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        at = [(across(place(one[0])), up(one[1])) for one in sorted(some)]
        drawn.append(_path(at, colour))
        drawn += [f'<circle cx="{left:.1f}" cy="{top:.1f}" r="3" fill="{colour}"/>' for left, top in at]
        drawn.append(_text(WIDTH - RIGHT + 12, TOP + 16 * number + 8, name, "start", colour=colour))
    return _svg(WIDTH, HEIGHT, drawn)


def radar(series: Mapping[str, Mapping[str, float]], *, title: str) -> str:
    """A ring for each series, with an axis for each name, from the least value (half way) to the largest (the rim).

    Raises:
        ValueError: there are fewer than three axes, or a series lacks one.
    """
    axes = list(dict.fromkeys(name for some in series.values() for name in some))
    if len(axes) < 3:
        raise ValueError(f"a radar chart must have at least three axes, got {len(axes)}")
    for name, some in series.items():
        if missing := [axis for axis in axes if axis not in some]:
            raise ValueError(f"series {name!r} must have a value for {missing[0]!r}, got none")
    least = {axis: min(some[axis] for some in series.values()) for axis in axes}
    most = {axis: max(some[axis] for some in series.values()) for axis in axes}
    middle, rim = (240.0, 230.0), 160.0

    def at(number: int, share: float) -> tuple[float, float]:
        angle = 2 * math.pi * number / len(axes) - math.pi / 2
        return middle[0] + rim * share * math.cos(angle), middle[1] + rim * share * math.sin(angle)

    drawn = [_text(240, 20, title, "middle", 14)]
    for share in (0.5, 0.75, 1.0):
        drawn.append(_path([at(number, share) for number in (*range(len(axes)), 0)], "#dddddd"))
    for number, axis in enumerate(axes):
        drawn.append(_line(*middle, *at(number, 1.0), "#dddddd"))
        drawn.append(_text(*at(number, 1.14), f"{axis} {least[axis]:.3g}-{most[axis]:.3g}", "middle"))
    for number, (name, some) in enumerate(series.items()):
        spread = {axis: most[axis] - least[axis] or 1.0 for axis in axes}
        shares = [0.5 + 0.5 * (some[axis] - least[axis]) / spread[axis] for axis in axes]
        colour = COLOURS[number % len(COLOURS)]
        drawn.append(_path([at(i % len(axes), shares[i % len(axes)]) for i in range(len(axes) + 1)], colour))
        drawn.append(_text(480, 60 + 18 * number, name, "start", colour=colour))
    return _svg(WIDTH, 460, drawn)


class _Axis:
    """From values to places, with a little room at both ends."""

    def __init__(self, values: Sequence[float], start: float, stop: float) -> None:
        low, high = min(values), max(values)
        room = 0.05 * (high - low) or 0.5
        self.low, self.high, self.start, self.stop = low - room, high + room, start, stop

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Some five round numbers between both ends."""
        raw = (self.high - self.low) / 5
        size = 10 ** math.floor(math.log10(raw))
        step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
        first = math.ceil(self.low / step)
        return [round(step * number, 10) for number in range(first, math.floor(self.high / step) + 1)]


def _short(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _text(x: float, y: float, text: str, anchor: str, size: int = 11, colour: str = "#333333") -> str:
    style = f'font-size="{size}" text-anchor="{anchor}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _path(points: Points, colour: str) -> str:
    at = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="1.8"/>'


def _svg(width: int, height: int, drawn: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="{width}" height="{height}" fill="white"/>', *drawn, "</svg>"]) + "\n"
