"""Bar charts as numbers: what a template draws as SVG. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

WIDTH, HEIGHT = 720, 180
SPARK_WIDTH, SPARK_HEIGHT = 240, 28
_LEFT, _BOTTOM, _TOP = 44, 22, 8
_MOST_TICKS = 7
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of a stacked bar."""

    x: float
    y: float
    width: float
    height: float
    series: str


@dataclass(frozen=True, slots=True)
class Column:
    """All of one bucket: where a pointer finds it, and what it says."""

    x: float
    width: float
    bars: Sequence[Bar]
    words: str
    label: str
    values: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    title: str
    #: By series, what it is called.
    series: Mapping[str, str]
    columns: Sequence[Column]
    across: Sequence[Tick]
    up: Sequence[Tick]
    total: Mapping[str, int]
    floor: float = HEIGHT - _BOTTOM

    @property
    def is_empty(self) -> bool:
        return not any(self.total.values())


def chart(
    title: str, series: Mapping[str, str], values: Mapping[int, Mapping[str, int]], *, since_ms: int, until_ms: int,
    width_ms: int,
) -> Chart:  # fmt: skip
    """Stacked bars: `values` by the beginning of each bucket, and by series."""
    buckets = list(range(since_ms // width_ms * width_ms, until_ms, width_ms))
    highest = max([sum(max(0, n) for n in values.get(bucket, {}).values()) for bucket in buckets] or [0])
    top = _round_up(highest)
    step = (WIDTH - _LEFT) / max(1, len(buckets))
    gap = 1.0 if step < 12 else 3.0  # noqa: PLR2004
    room = HEIGHT - _BOTTOM - _TOP
    columns: list[Column] = []
    for index, bucket in enumerate(buckets):
        found = values.get(bucket, {})
        x, y, bars = _LEFT + index * step, float(HEIGHT - _BOTTOM), []
        for name in series:
            n = max(0, found.get(name, 0))
            height = max(1.0, n / top * room) if n else 0.0
            if height:
                y -= height
                bars.append(Bar(round(x + gap / 2, 1), round(y, 1), round(step - gap, 1), round(height, 1), name))
        words = ", ".join(f"{found[name]} {called}" for name, called in series.items() if found.get(name)) or "nothing"
        label = _label(bucket, width_ms, is_long=True)
        shown = {name: found.get(name, 0) for name in series}
        columns.append(Column(round(x, 1), round(step, 1), bars, f"{label}: {words}", label, shown))
    every = max(1, -(-len(buckets) // _MOST_TICKS))
    across = [
        Tick(round(_LEFT + index * step, 1), _label(bucket, width_ms))
        for index, bucket in enumerate(buckets)
        if index % every == 0
    ]
    up = [Tick(round(HEIGHT - _BOTTOM - part * room, 1), _count(top * part)) for part in (0, 0.5, 1)] if highest else []
    total = {name: sum(values.get(bucket, {}).get(name, 0) for bucket in buckets) for name in series}
    return Chart(title=title, series=series, columns=columns, across=across, up=up, total=total)


def spark(values: Mapping[int, int], *, since_ms: int, until_ms: int, width_ms: int) -> list[Bar]:
    """A row of bars without an axis: how it went, beside a number that says how much."""
    buckets = list(range(since_ms // width_ms * width_ms, until_ms, width_ms))
    highest = max([values.get(bucket, 0) for bucket in buckets] or [0])
    step = SPARK_WIDTH / max(1, len(buckets))
    found = []
    for index, bucket in enumerate(buckets):
        n = values.get(bucket, 0)
        if n > 0:
            x, height = index * step, max(1.0, n / highest * SPARK_HEIGHT)
            found.append(
                Bar(round(x, 1), round(SPARK_HEIGHT - height, 1), round(step * 0.8, 1), round(height, 1), "good")
            )
    return found


def _round_up(n: int) -> int:
    """The next of 2, 4, 10, 20, 40, 100, ...: so that half of it is whole."""
    unit = 1
    while True:
        for times in (2, 4, 10):
            if times * unit >= n:
                return times * unit
        unit *= 10


def _count(n: float) -> str:
    whole = int(n)
    if whole >= 1_000_000:  # noqa: PLR2004
        return f"{whole / 1_000_000:g}M"
    return f"{whole / 1000:g}k" if whole >= 1000 else str(whole)  # noqa: PLR2004


def _label(bucket: int, width_ms: int, *, is_long: bool = False) -> str:
    at = datetime.fromtimestamp(bucket / 1000, UTC)
    if width_ms >= _DAY_MS:
        return at.strftime("%d %b")
    return at.strftime("%d %b %H:%M") if is_long else at.strftime("%H:%M")
