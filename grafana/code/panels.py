"""What all dashboards share: their frame, their variables, and the kinds of panels."""

import dataclasses

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as prometheus_models
from published import RUNBOOK

SOURCE = models.DataSourceRef(type_val="prometheus", uid="$datasource")

# The labels of the nodes that are selected at the top of a dashboard.
NODES = 'job="$job",instance=~"$instance"'
# The labels of all nodes of the cluster, for figures that make no sense for only some of the nodes.
CLUSTER = 'job="$job"'

# Colours by meaning: the same outcome is the same colour on every dashboard.
GREEN, YELLOW, ORANGE, RED, BLUE, PURPLE, GREY = (
    "green",
    "yellow",
    "orange",
    "red",
    "blue",
    "purple",
    "text",
)


@dataclasses.dataclass
class Query:
    """One expression of a panel, and the legend of its series."""

    expr: str
    legend: str = ""


@dataclasses.dataclass
class Step:
    """A threshold: from this value on, this colour."""

    value: float | None
    color: str


def steps(*thresholds: tuple[float, str], base: str = GREEN) -> list[Step]:
    """Returns thresholds, with the colour of values below all of them."""
    return [Step(None, base), *(Step(value, color) for value, color in thresholds)]


def runbook(anchor: str) -> dashboard.DashboardLink:
    """Returns the link of a panel to a paragraph of the runbook."""
    url = f"{RUNBOOK}#{anchor}" if anchor else RUNBOOK
    link = dashboard.DashboardLink("Runbook")
    return link.type(models.DashboardLinkType.LINK).url(url).target_blank(True)


def target(index: int, query: Query, instant: bool) -> prometheus.Dataquery:
    """Returns a query of Prometheus."""
    built = prometheus.Dataquery().expr(query.expr).ref_id(chr(ord("A") + index))
    built = built.legend_format(query.legend or "__auto")
    return built.instant() if instant else built.range()


def furnish(
    panel, title, description, unit, queries, width, height, instant, thresholds, anchor, decimals, empty=""
):
    """Sets the properties that every panel has: title, data source, size, queries, thresholds.

    A panel that may be empty shows the text `empty` instead of "No data"."""
    panel.title(title).description(description).datasource(SOURCE).unit(unit).span(width).height(height)
    panel.links([runbook(anchor)])
    for index, query in enumerate(queries):
        panel.with_target(target(index, query, instant))
    if decimals is not None:
        panel.decimals(decimals)
    if empty:
        panel.no_value(empty)
    if thresholds:
        built = [models.Threshold(value=step.value, color=step.color) for step in thresholds]
        config = dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(built)
        panel.thresholds(config)
    return panel


def fixed_colors(panel, colors: dict[str, str]):
    """Sets the colours of series by their names."""
    for name, color in colors.items():
        value = {"mode": "fixed", "fixedColor": color}
        panel.override_by_name(name, [models.DynamicConfigValue(id_val="color", value=value)])
    return panel


def last(panel):
    """Shows the last value of each series."""
    return panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))


def number(
    title,
    description,
    query,
    unit="short",
    width=4,
    height=4,
    thresholds=None,
    anchor="",
    decimals=None,
    legend="",
    empty="",
):
    """Returns a panel that shows one number, and its history as a graph behind the number."""
    panel = stat.Panel()
    queries = [Query(query, legend)]
    furnish(
        panel,
        title,
        description,
        unit,
        queries,
        width,
        height,
        False,
        thresholds or steps(base=BLUE),
        anchor,
        decimals,
        empty,
    )
    panel.graph_mode(common_models.BigValueGraphMode.AREA).color_mode(common_models.BigValueColorMode.VALUE)
    return last(panel)


def lines(
    title,
    description,
    queries,
    unit="short",
    width=8,
    height=8,
    stacked=False,
    thresholds=None,
    anchor="",
    colors=None,
    minimum=0,
    maximum=None,
    decimals=None,
    empty="",
    sort_legend=True,
):
    """Returns a panel with lines over time, or with stacked areas."""
    panel = timeseries.Panel()
    furnish(
        panel, title, description, unit, queries, width, height, False, thresholds, anchor, decimals, empty
    )
    legend = common.VizLegendOptions().display_mode(common_models.LegendDisplayMode.TABLE).show_legend(True)
    legend = legend.placement(common_models.LegendPlacement.BOTTOM).calcs(["lastNotNull", "max"])
    if sort_legend:
        legend = legend.sort_by("Max").sort_desc(True)
    panel.legend(legend)
    tooltip = common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI)
    panel.tooltip(tooltip.sort(common_models.SortOrder.DESCENDING))
    # On a pile, the line of a series that is 0 would look like the edge of what lies below.
    panel.line_width(0 if stacked else 1).fill_opacity(70 if stacked else 8)
    panel.show_points(common_models.VisibilityMode.AUTO)
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    if minimum is not None:
        panel.min(minimum)
    if maximum is not None:
        panel.max(maximum)
    if thresholds:
        style = common.GraphThresholdsStyleConfig().mode(common_models.GraphTresholdsStyleMode.DASHED)
        panel.thresholds_style(style)
    return fixed_colors(panel, colors or {})


def bars(
    title, description, query, unit, width=8, height=8, thresholds=None, anchor="", maximum=None, legend=""
):
    """Returns a panel that shows the last value of each series as a bar."""
    panel = bargauge.Panel()
    furnish(
        panel, title, description, unit, [Query(query, legend)], width, height, True, thresholds, anchor, None
    )
    panel.orientation(common_models.VizOrientation.HORIZONTAL).min(0)
    panel.display_mode(common_models.BarGaugeDisplayMode.BASIC)
    if maximum is not None:
        panel.max(maximum)
    return last(panel)


def rows(
    title, description, query, unit="short", width=8, height=8, anchor="", hidden=(), order=(), empty=""
):
    """Returns a panel with a table that has a row for each series. The columns in `order` come first."""
    panel = table.Panel()
    furnish(panel, title, description, unit, [Query(query)], width, height, True, None, anchor, None, empty)
    panel.show_header(True)
    built = panel.build()
    built.targets[0].format_val = prometheus_models.PromQueryFormat.TABLE
    exclude = {name: True for name in ("Time", "__name__", *hidden)}
    options = {"excludeByName": exclude}
    if order:
        options["indexByName"] = {name: place for place, name in enumerate(order)}
    organize = models.DataTransformerConfig(id_val="organize", options=options)
    return panel.with_transformation(organize)


def variable(name: str, label: str, query: str, several: bool) -> dashboard.QueryVariable:
    """Returns a variable whose choices are the values of a label."""
    built = dashboard.QueryVariable(name).label(label).datasource(SOURCE)
    built.query({"query": query, "refId": f"variable-{name}"})
    built.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
    if several:
        built.multi(True).include_all(True).all_value(".*")
    return built


def frame(uid: str, title: str, description: str, coupons: bool = False) -> dashboard.Dashboard:
    """Returns a dashboard without panels."""
    built = dashboard.Dashboard(title).uid(uid).description(description).tags(["firstcome"])
    built.timezone("browser").tooltip(models.DashboardCursorSync.CROSSHAIR).readonly()
    built.time("now-15m", "now").refresh("5s" if coupons else "10s")
    links = dashboard.DashboardLink("Firstcome").type(models.DashboardLinkType.DASHBOARDS).tags(["firstcome"])
    built.link(links.include_vars(True).keep_time(True))
    built.link(runbook(""))
    built.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    built.with_variable(variable("job", "Job", "label_values(coupon_build_info, job)", False))
    instances = 'label_values(coupon_build_info{job="$job"}, instance)'
    built.with_variable(variable("instance", "Node", instances, True))
    if coupons:
        query = 'label_values(coupon_issued_quantity{job="$job"}, coupon)'
        built.with_variable(variable("coupon", "Coupon", query, True))
    return built


def section(title: str) -> dashboard.Row:
    """Returns a heading between panels."""
    return dashboard.Row(title)


def add(board: dashboard.Dashboard, panel) -> None:
    """Adds a panel or a heading to a dashboard."""
    if isinstance(panel, dashboard.Row):
        board.with_row(panel)
    else:
        board.with_panel(panel)


def rate(metric: str, labels: str = NODES) -> str:
    """Returns the events a second of a counter."""
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def quantile(q: float, metric: str, by: str, labels: str = NODES) -> str:
    """Returns a quantile of a histogram."""
    return f"histogram_quantile({q}, sum by ({by}, le) ({rate(metric + '_bucket', labels)}))"


def of_nodes(metric: str) -> Query:
    """A gauge, by node."""
    return Query(f"{metric}{{{NODES}}}", "{{instance}}")


def rate_by(label: str, metric: str) -> Query:
    """The events a second of a counter, by a label."""
    return Query(f"sum by ({label}) ({rate(metric)})", f"{{{{{label}}}}}")


def quantile_by(label: str, q: float, metric: str) -> Query:
    """A quantile of a histogram, by a label."""
    return Query(quantile(q, metric, label), f"{{{{{label}}}}}")


def mean_of_nodes(metric: str) -> Query:
    """The mean of a histogram, by node."""
    total, count = rate(f"{metric}_sum"), rate(f"{metric}_count")
    return Query(f"sum by (instance) ({total}) / sum by (instance) ({count})", "{{instance}}")


def increase_by(label: str, metric: str, labels: str = NODES) -> Query:
    """The events of the last minute, by a label."""
    return Query(f"sum by ({label}) (increase({metric}{{{labels}}}[1m]))", f"{{{{{label}}}}}")


def nodes_down(width: int = 4) -> stat.Panel:
    """What a sum over the nodes that answer does not show."""
    return number(
        "Nodes down",
        "Nodes that Prometheus does not reach. All other panels are without them.",
        f"count(up{{{CLUSTER}}} == 0) or vector(0)",
        width=width,
        thresholds=steps((1, RED)),
        anchor="couponnodedown",
    )


def nodes_ready(width: int = 4) -> stat.Panel:
    """The first thing to look at."""
    return number(
        "Nodes ready",
        "Nodes to which a balancer sends requests. Green from 1 on, because no metric says how many there "
        "should be: a step down in the graph behind the number is a node that is gone.",
        f"sum(coupon_ready{{{CLUSTER}}})",
        width=width,
        thresholds=steps((1, GREEN), base=RED),
        anchor="couponnodenotready",
    )
