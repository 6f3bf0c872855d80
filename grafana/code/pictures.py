"""Draws a dashboard as Grafana lays it out, from a Prometheus, into a picture."""

import datetime
import math
import pathlib
import re

import matplotlib

matplotlib.use("Agg")

import matplotlib.dates
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator
from source import Source, dashboards, fill_in

# Size in inches of one unit of Grafana's grid, which is 24 units wide.
UNIT_WIDTH, UNIT_HEIGHT = 0.74, 0.36
DPI = 100
LEGEND_ROWS = 6
# Seconds between two marks of the time.
TICKS = [5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400, 604_800, 2_592_000]
HEAD = 1.6

BACKGROUND, PANEL, BORDER, TEXT, FAINT = "#111217", "#181b1f", "#2c3235", "#d8d9da", "#8e8e8e"
COLORS = {
    "green": "#73bf69",
    "light-green": "#c8f2c2",
    "yellow": "#f2cc0c",
    "orange": "#ff9830",
    "red": "#f2495c",
    "dark-red": "#c4162a",
    "blue": "#5794f2",
    "light-blue": "#8ab8ff",
    "super-light-blue": "#c0d8ff",
    "dark-blue": "#1f60c4",
    "dark-purple": "#8f3bb8",
    "purple": "#b877d9",
    "text": "#c0c0c0",
}
PALETTE = [
    "#73bf69",
    "#f2cc0c",
    "#8ab8ff",
    "#ff780a",
    "#f2495c",
    "#5794f2",
    "#b877d9",
    "#6ed0e0",
    "#fade2a",
    "#ca95e5",
]


def scaled(value: float, base: float, names: list[str], unit: str) -> str:
    """Writes a number with the prefix that fits."""
    step = 0
    while abs(value) >= base and step < len(names) - 1:
        value, step = value / base, step + 1
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text}{names[step]}{unit}"


def duration(value: float) -> str:
    """Writes seconds in the unit that fits."""
    size = abs(value)
    if size == 0:
        return "0 s"
    for bound, factor, unit in ((1e-3, 1e6, "µs"), (1, 1e3, "ms"), (120, 1, "s"), (7200, 1 / 60, "min")):
        if size < bound:
            return f"{value * factor:.3g} {unit}"
    return f"{value / 3600:.3g} h" if size < 172_800 else f"{value / 86_400:.3g} d"


def written(value: float, unit: str, decimals: int | None) -> str:
    """Writes a value in a unit of Grafana."""
    if math.isnan(value):
        return "–"
    if unit == "percentunit":
        return f"{value * 100:.{1 if decimals is None else decimals}f} %"
    if unit == "s":
        return duration(value)
    if unit in ("bytes", "binBps"):
        return scaled(value, 1024, [" B", " KiB", " MiB", " GiB"], "/s" if unit == "binBps" else "")
    suffix = {"reqps": " req/s", "ops": "/s"}.get(unit, "")
    if decimals is not None and abs(value) < 1000:
        return f"{value:.{decimals}f}{suffix}"
    return scaled(value, 1000, ["", " k", " M", " G"], suffix)


def shown(
    value: float,
    defaults: dict,
) -> str:
    """Writes a value in the unit and with the decimals that a panel's defaults name."""
    decimals = defaults.get("decimals")
    return written(value, defaults.get("unit", "short"), None if decimals is None else int(decimals))


def legend_of(target: dict, labels: dict) -> str:
    """Returns the name of a series."""
    text = target.get("legendFormat", "__auto")
    if text == "__auto":
        return ", ".join(f"{name}={value}" for name, value in labels.items() if name != "__name__") or "value"
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match.group(1), ""), text)


def color_at(value: float, panel: dict) -> str:
    """Returns the colour of a value by the panel's thresholds."""
    color = "text"
    for step in panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", []):
        if step["value"] is None or value >= step["value"]:
            color = step["color"]
    return COLORS.get(color, TEXT)


def fixed_colors(panel: dict) -> dict[str, str]:
    """Returns the colours that series have by their names."""
    colors = {}
    for override in panel["fieldConfig"].get("overrides", []):
        for item in override["properties"]:
            if item["id"] == "color":
                colors[override["matcher"]["options"]] = COLORS.get(item["value"]["fixedColor"], TEXT)
    return colors


def no_value(panel: dict) -> str:
    """Returns what an empty panel shows."""
    return panel["fieldConfig"]["defaults"].get("noValue", "no data")


def known(values) -> list[float]:
    """Returns the values that are numbers."""
    return [value for value in values if not math.isnan(value)]


def alone(values: list[float]) -> list[float]:
    """Returns the values without a neighbour, which a line would not show; others become NaN."""
    around = [math.nan, *values, math.nan]
    return [
        value if math.isnan(before) and math.isnan(after) else math.nan
        for before, value, after in zip(around, values, around[2:])
    ]


class Picture:
    """One dashboard."""

    def __init__(self, source: Source, board: dict, begin: float, end: float):
        self.source, self.board, self.begin, self.end = source, board, begin, end
        step = max(1, math.ceil((end - begin) / 300))
        self.times = [begin + step * number for number in range(int((end - begin) / step) + 1)]
        self.moments = [datetime.datetime.fromtimestamp(at) for at in self.times]
        rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
        self.width, self.height = 24 * UNIT_WIDTH, rows * UNIT_HEIGHT + HEAD * UNIT_HEIGHT
        self.figure = plt.figure(figsize=(self.width, self.height), facecolor=BACKGROUND)
        title = f"{board['title']}"
        top = 1 - 0.75 * UNIT_HEIGHT / self.height
        self.figure.text(0.006, top, title, color=TEXT, fontsize=15, weight="bold", va="center")
        span = " – ".join(datetime.datetime.fromtimestamp(at).strftime("%H:%M:%S") for at in (begin, end))
        self.figure.text(0.994, top, span, color=FAINT, fontsize=11, ha="right", va="center")

    def box(self, panel: dict, left=0.0, bottom=0.0, right=0.0, top=0.0):
        """Returns the part of the figure that a panel takes, reduced by these margins in inches."""
        place = panel["gridPos"]
        x, y = place["x"] * UNIT_WIDTH + 0.05, (place["y"] + HEAD) * UNIT_HEIGHT + 0.03
        width, height = place["w"] * UNIT_WIDTH - 0.1, place["h"] * UNIT_HEIGHT - 0.06
        return (
            (x + left) / self.width,
            1 - (y + height - bottom) / self.height,
            (width - left - right) / self.width,
            (height - top - bottom) / self.height,
        )

    def frame(self, panel: dict) -> None:
        """Draws a panel's border and title."""
        x, y, width, height = self.box(panel)
        patch = Rectangle((x, y), width, height, facecolor=PANEL, edgecolor=BORDER, zorder=-1)
        patch.set_transform(self.figure.transFigure)
        self.figure.add_artist(patch)
        at = (x + 0.08 / self.width, y + height - 0.16 / self.height)
        self.figure.text(*at, panel["title"], color=TEXT, fontsize=9.5, weight="bold", va="center")

    def series(self, panel: dict, instant: bool):
        """Yields the name, labels and values (at `self.times`, or only the last) of each series of a panel."""
        for target in panel["targets"]:
            expr = fill_in(target["expr"], self.end - self.begin)
            if instant:
                found = [(labels, [value]) for labels, value in self.source.instant(expr, self.end)]
            else:
                step = self.times[1] - self.times[0]
                ranges = self.source.range(expr, self.begin, self.end, step)
                found = [(labels, self.at_all_times(times, values)) for labels, times, values in ranges]
            for labels, values in found:
                yield legend_of(target, labels), labels, values

    def at_all_times(self, times: list[float], values: list[float]) -> list[float]:
        """Returns a value for each of `self.times`; it is NaN where the series has none."""
        known = {round(at - self.begin, 1): value for at, value in zip(times, values)}
        return [known.get(round(at - self.begin, 1), math.nan) for at in self.times]

    def heading(self, panel: dict) -> None:
        """Draws a heading between panels."""
        x, y, _, height = self.box(panel)
        self.figure.text(
            x, y + height / 2, panel["title"], color=TEXT, fontsize=11, weight="bold", va="center"
        )

    def number(self, panel: dict) -> None:
        """Draws one number, and its history behind it."""
        self.frame(panel)
        axes = self.figure.add_axes(self.box(panel, bottom=0.04, top=0.3, left=0.02, right=0.02))
        axes.set_axis_off()
        series = [values for _, _, values in self.series(panel, False)]
        values = [value for value in series[0] if not math.isnan(value)] if series else []
        if not values:
            axes.text(
                0.5,
                0.5,
                no_value(panel),
                color=FAINT,
                fontsize=13,
                ha="center",
                va="center",
                transform=axes.transAxes,
            )
            return
        color = color_at(values[-1], panel)
        axes.fill_between(self.times, series[0], color=color, alpha=0.15, linewidth=0)
        axes.set_xlim(self.begin, self.end)
        axes.set_ylim(min(0, *values), max(max(values) * 2.2, 1e-9))
        text = shown(values[-1], panel["fieldConfig"]["defaults"])
        axes.text(
            0.5,
            0.52,
            text,
            color=color,
            fontsize=19,
            weight="bold",
            ha="center",
            va="center",
            transform=axes.transAxes,
        )

    def lines(self, panel: dict) -> None:
        """Draws lines or stacked areas over time."""
        self.frame(panel)
        defaults, fixed = panel["fieldConfig"]["defaults"], fixed_colors(panel)
        series = [(name, values) for name, _, values in self.series(panel, False) if known(values)]
        rows = min(len(series), LEGEND_ROWS)
        axes = self.figure.add_axes(self.box(panel, 0.82, 0.32 + 0.155 * rows, 0.14, 0.36), facecolor=PANEL)
        self.scale(axes, defaults)
        if not series:
            self.no_data(axes, no_value(panel))
        custom = defaults.get("custom", {})
        stacked = custom.get("stacking", {}).get("mode") == "normal"
        fill, width = custom.get("fillOpacity", 0) / 100, 1.2 * custom.get("lineWidth", 1)
        below = [0.0] * len(self.times)
        colored = []
        for place, (name, values) in enumerate(series):
            color = fixed.get(name) or PALETTE[place % len(PALETTE)]
            colored.append((name, values, color))
            if stacked:
                above = [base + (0 if math.isnan(value) else value) for base, value in zip(below, values)]
                axes.fill_between(self.moments, below, above, color=color, alpha=fill, linewidth=0)
                values = [math.nan if math.isnan(value) else top for value, top in zip(values, above)]
                below = above
            axes.plot(self.moments, values, color=color, linewidth=width)
            axes.plot(self.moments, alone(values), color=color, linestyle="", marker="o", markersize=2.5)
        self.limits(axes, defaults)
        self.thresholds(axes, defaults)
        self.legend(panel, colored, defaults)

    @staticmethod
    def no_data(axes, why: str) -> None:
        """Says that there is nothing to draw."""
        style = {"color": FAINT, "fontsize": 11, "ha": "center", "va": "center"}
        axes.text(0.5, 0.5, why, transform=axes.transAxes, **style)

    def scale(self, axes, defaults: dict) -> None:
        """Draws the scales of a panel."""
        axes.tick_params(colors=FAINT, labelsize=7.5, length=0)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.grid(color=BORDER, linewidth=0.6)
        begin, end = (datetime.datetime.fromtimestamp(at) for at in (self.begin, self.end))
        axes.set_xlim(begin, end)
        every = next(step for step in TICKS if self.end - self.begin <= 6 * step)
        first = math.ceil(self.begin / every) * every
        ticks = [first + every * number for number in range(7) if first + every * number <= self.end]
        axes.set_xticks([datetime.datetime.fromtimestamp(at) for at in ticks])
        axes.xaxis.set_major_formatter(matplotlib.dates.DateFormatter("%H:%M:%S"))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=defaults.get("decimals") == 0))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, defaults)))

    @staticmethod
    def limits(axes, defaults: dict) -> None:
        """Sets the lowest and the highest value of the scale."""
        bottom, top = axes.get_ylim()
        greatest = max([value for line in axes.lines for value in known(line.get_ydata())], default=0)
        if defaults.get("min") is not None:
            bottom = defaults["min"]
            top = greatest * 1.1 if greatest > bottom else bottom + 1
        if defaults.get("max") is not None:
            top = defaults["max"] * 1.02
        axes.set_ylim(bottom, top)

    @staticmethod
    def thresholds(axes, defaults: dict) -> None:
        """Draws the thresholds that lie within the scale."""
        for step in defaults.get("thresholds", {}).get("steps", []):
            if step["value"] is not None and step["value"] <= axes.get_ylim()[1]:
                axes.axhline(
                    step["value"], color=COLORS.get(step["color"], TEXT), linewidth=0.9, linestyle="--"
                )

    def legend(self, panel: dict, series: list, defaults: dict) -> None:
        """Writes name, last value and greatest value of the largest series below the axes."""
        x, y, width, _ = self.box(panel)
        rows = series
        if panel["options"]["legend"].get("sortBy"):
            rows = sorted(series, key=lambda item: max(known(item[1])), reverse=True)
        rows = rows[:LEGEND_ROWS]
        style = {"fontsize": 7.5, "va": "center"}
        for place, (name, values, color) in enumerate(rows):
            line = y + (0.1 + 0.155 * (len(rows) - 1 - place)) / self.height
            left = x + 0.1 / self.width
            self.figure.text(left, line, "—", color=color, fontsize=9, weight="bold", va="center")
            hidden = len(series) - len(rows)
            more = f"   (and {hidden} more)" if hidden and place == len(rows) - 1 else ""
            length = int(panel["gridPos"]["w"] * 5.6)
            text = name if len(name) <= length else name[: length - 1] + "…"
            self.figure.text(left + 0.2 / self.width, line, text + more, color=TEXT, **style)
            figures = f"last {shown(known(values)[-1], defaults)}   max {shown(max(known(values)), defaults)}"
            right = x + width - 0.1 / self.width
            self.figure.text(right, line, figures, color=FAINT, ha="right", **style)

    def bars(self, panel: dict) -> None:
        """Draws the last value of each series as a bar."""
        self.frame(panel)
        defaults = panel["fieldConfig"]["defaults"]
        series = [(name, values[0]) for name, _, values in self.series(panel, True) if known(values)]
        axes = self.figure.add_axes(self.box(panel, 1.25, 0.12, 0.75, 0.36), facecolor=PANEL)
        axes.set_axis_off()
        most = defaults.get("max") or max([value for _, value in series], default=1) or 1
        for place, (name, value) in enumerate(reversed(series)):
            axes.barh(place, most, color=BORDER, height=0.55)
            axes.barh(place, min(value, most), color=color_at(value, panel), height=0.55)
            axes.text(-0.02 * most, place, name, color=TEXT, fontsize=8, ha="right", va="center")
            axes.text(
                1.02 * most,
                place,
                shown(value, defaults),
                color=color_at(value, panel),
                fontsize=8.5,
                va="center",
            )
        axes.set_xlim(0, most)

    def table(self, panel: dict) -> None:
        """Draws a table with a row for each series."""
        self.frame(panel)
        options = panel["transformations"][0]["options"]
        exclude, order = options["excludeByName"], options.get("indexByName", {})
        found = [labels for _, labels, _ in self.series(panel, True)]
        columns = {name for labels in found for name in labels if name not in exclude}
        columns = sorted(columns, key=lambda name: (order.get(name, len(order)), name))
        x, y, width, height = self.box(panel, left=0.12, right=0.1)
        top = y + height - 0.45 / self.height
        if not found:
            middle = (x + width / 2, y + height / 2)
            self.figure.text(*middle, no_value(panel), color=FAINT, fontsize=11, ha="center", va="center")
        for place, name in enumerate(columns):
            left = x + width * place / len(columns)
            self.figure.text(left, top, name, color="#8ab8ff", fontsize=8.5, weight="bold", va="center")
            for row, labels in enumerate(found[:8], start=1):
                line = top - 0.21 * row / self.height
                self.figure.text(left, line, labels.get(name, ""), color=TEXT, fontsize=8.5, va="center")

    def draw(self, path: pathlib.Path) -> None:
        """Draws all panels into a file."""
        kinds = {
            "row": self.heading,
            "stat": self.number,
            "timeseries": self.lines,
            "bargauge": self.bars,
            "table": self.table,
        }
        for panel in self.board["panels"]:
            kinds[panel["type"]](panel)
        self.figure.savefig(path, dpi=DPI, facecolor=BACKGROUND)
        plt.close(self.figure)


def draw_all(source: Source, begin: float, end: float, folder: pathlib.Path) -> None:
    """Draws all dashboards into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, board in dashboards().items():
        Picture(source, board, begin, end).draw(folder / f"{name}.png")
