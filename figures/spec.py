"""What a sweep file may say of its figure, and the check of it.

A file's `[figure]` has a list of panels, which stand beside each other:

    [figure]
    panels = [
        { kind = "line", x = "model.aux", teacher = true },
        { kind = "cloud", x = "aux_kl", log = "x" },
    ]

Every panel has a `kind`:

    line        a metric against an axis of the sweep, a line for every value of the other axes
    bars        a bar for every point, in groups where `series` names an axis
    difference  the paired differences to the baseline, as bars
    cloud       one metric against another: every run faint, the mean of every point strong
    steps       a metric that is a list along training (`alignment`), step by step
    conditions  a bar for every published value that has a name, with that value beside it
    images      examples of the training images and of what the students are distilled on

and may have, if its kind is named behind the key:

    x         axis (line) or metric (cloud) that runs to the right; neither can do without it
    y         metric that runs upward, "accuracy" by default (line, bars, difference, cloud, steps);
              of a line it may be a list of metrics, each a line of its own
    labels    labels of the list that are drawn, all by default (the same five)
    series    axis that tells bars of one group apart, or clouds: by default bars are not grouped,
              and clouds are told apart by label (bars, difference, cloud)
    names     texts for the values of `series`, of which `none` is where it does not exist:
              { matched = "cloned" } (bars, difference, cloud), or
              for labels and for the metrics of a list (line); what has one text is one cloud, one
              line; `[figure.names]` are for all panels
    title     text above the panel (all)
    zero      labels of points that the setting on x has no effect on and that stand at 0 (line)
    read      what to read from a list of widths on x: "width" of the first layer, or "depth" (line)
    teacher   whether the accuracy of the first line's teachers is drawn too, as a band (line)
    also      a second metric, as hollow squares on the bars (bars)
    choose    metric by which, of the points of one label, the one with the lowest mean gets the
              bar: { SGD = "final_loss" }; the others have none, and lines mark it (bars)
    log       "x", "y" or "xy": axes that are logarithmic where their values span a factor of 8;
              x of a line always is (line: "y" alone, cloud)
    diagonal  whether a line marks where both metrics are equal (cloud)
    inches    width of the panel (all)
    stack     whether the panel stands below the one before it, not beside it (all but the first)
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sublab.errors import InputError

LABEL, ACCURACY = "label", "accuracy"
_FOR_ALL = frozenset({"kind", "inches", "stack", "title"})
_OF_POINTS = frozenset({"y", "labels"})
KEYS: dict[str, frozenset[str]] = {
    "line": _FOR_ALL | _OF_POINTS | {"x", "names", "zero", "read", "teacher", "log"},
    "bars": _FOR_ALL | _OF_POINTS | {"series", "names", "also", "choose"},
    "difference": _FOR_ALL | _OF_POINTS | {"series", "names"},
    "cloud": _FOR_ALL | _OF_POINTS | {"x", "series", "names", "log", "diagonal"},
    "steps": _FOR_ALL | _OF_POINTS,
    "conditions": _FOR_ALL,
    "images": _FOR_ALL,
}
READINGS = ("width", "depth")
_NEEDED = {"line": ("x",), "cloud": ("x",), "steps": ("y",)}
_INCHES = (1, 20)


def check_panels(
    panels: list[dict[str, Any]],
    axes: Sequence[str],
    metrics: Sequence[str],
    labels: Sequence[str],
) -> None:
    """Says what is wrong with the panels of a sweep file, if anything is.

    Args:
        panels: `panels` of the file's `[figure]`.
        axes: dotted names of the settings that vary, and "label" where there is a list.
        metrics: names of all metrics that a sweep can record; a panel of one that was not measured
            stays empty and says so.
        labels: labels of the list; none where there is no list.

    Raises:
        InputError: one line with the panel's number (the first is 1), the key, and what would be
            right.
    """
    if not isinstance(panels, list) or not panels:
        raise InputError("[figure] panels must be a list of one or more tables, each with a kind")
    for number, panel in enumerate(panels, 1):
        try:
            _check_panel(panel, number, axes, metrics, labels)
        except ValueError as error:
            raise InputError(f"[figure] panel {number}: {error}") from None


def metrics_upward(panel: Mapping[str, Any]) -> list[str]:
    """The metrics of a panel that run upward: its `y`, which may be one or a list."""
    y = panel.get("y", ACCURACY)
    return list(y) if isinstance(y, list) else [y]


def with_names(panels: Any, names: Mapping[str, Any]) -> Any:
    """The panels, each that may have `names` with those of the figure besides its own.

    What is no list of panels stays as it is, for `check_panels` to refuse.
    """
    if not names or not isinstance(panels, list):
        return panels
    named = []
    for panel in panels:
        may = isinstance(panel, dict) and "names" in KEYS.get(str(panel.get("kind")), ())
        own = panel.get("names", {}) if may else None
        named.append(panel | {"names": {**names, **own}} if isinstance(own, dict) else panel)
    return named


def axis_named(name: str, axes: Collection[str]) -> str | None:
    """The one of `axes` that `name` means, or None: `start` and `start.kind` are one axis."""
    for spelling in (name, f"{name}.kind", name.removesuffix(".kind")):
        if spelling in axes:
            return spelling
    return None


def runs_in_words(config: Mapping[str, Any]) -> str:
    """How many runs the points of a summary have, such as "4", or "4 to 10"."""
    numbers = [point.get("runs", config["runs"]) for point in config["points"]]
    few, most = min(numbers), max(numbers)
    return f"{most}" if few == most else f"{few} to {most}"


def _check_panel(
    panel: Any,
    number: int,
    axes: Sequence[str],
    metrics: Sequence[str],
    labels: Sequence[str],
) -> None:
    if not isinstance(panel, dict):
        raise ValueError(f"must be a table with a kind, not {panel!r}")
    kind = panel.get("kind")
    if not isinstance(kind, str) or kind not in KEYS:
        raise ValueError(_other("kind", kind, KEYS))
    for key in panel:
        if key not in KEYS[kind]:
            known = ", ".join(sorted(KEYS[kind]))
            raise ValueError(f"unknown key {key!r}; a panel of kind {kind} may have {known}")
    for key in _NEEDED.get(kind, ()):
        if key not in panel:
            what = _listed(axes if key == "x" and kind == "line" else metrics)
            raise ValueError(f"{key} is missing; a panel of kind {kind} needs it, one of {what}")
    if panel.get("stack") and number == 1:
        raise ValueError("stack = true: the first panel has none before it to stand below")
    checks = _checks(kind, axes, metrics, labels)
    for key, value in panel.items():
        if key != "kind":
            checks[key](key, value)


def _checks(
    kind: str, axes: Sequence[str], metrics: Sequence[str], labels: Sequence[str]
) -> dict[str, Callable[[str, Any], None]]:
    """What checks the value of each key, by key; a check raises ValueError."""

    def axis(key: str, value: Any) -> None:
        if not isinstance(value, str) or axis_named(value, axes) is None:
            raise ValueError(_other(key, value, axes))

    def metric(key: str, value: Any) -> None:
        if not isinstance(value, str) or value not in metrics:
            raise ValueError(_other(key, value, metrics))

    def metrics_of_lines(key: str, value: Any) -> None:
        if not isinstance(value, list):
            metric(key, value)
            return
        for item in value:
            metric(key, item)
        if len(set(value)) < max(1, len(value)):
            raise ValueError(f"{key} = {value!r}; it must be a list of metrics, each once")

    def some_labels(key: str, value: Any) -> None:
        if not isinstance(value, list) or not value or any(item not in labels for item in value):
            raise ValueError(
                f"{key} = {value!r}; it must be a list of labels of this sweep: {_listed(labels)}"
            )

    def flag(key: str, value: Any) -> None:
        if not isinstance(value, bool):
            raise ValueError(f"{key} = {value!r}; it must be true or false")

    def one_of(*known: str) -> Callable[[str, Any], None]:
        def check(key: str, value: Any) -> None:
            if value not in known:
                raise ValueError(_other(key, value, known))

        return check

    def text(key: str, value: Any) -> None:
        if not isinstance(value, str) or not value:
            raise ValueError(f"{key} = {value!r}; it must be a text")

    def names(key: str, value: Any) -> None:
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            by = "label or metric" if kind == "line" else "value of series"
            raise ValueError(f"{key} = {value!r}; it must be a table of texts by {by}")

    def choose(key: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{key} = {value!r}; it must be a table of metrics by label")
        for label, name in value.items():
            some_labels(key, [label])
            metric(f"{key}.{label}", name)

    def inches(key: str, value: Any) -> None:
        low, high = _INCHES
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high:
            raise ValueError(f"{key} = {value!r}; it must be a number from {low} to {high}")

    return {
        "x": axis if kind == "line" else metric,
        "y": metrics_of_lines if kind == "line" else metric,
        "labels": some_labels,
        "series": axis,
        "names": names,
        "zero": some_labels,
        "read": one_of(*READINGS),
        "teacher": flag,
        "also": metric,
        "choose": choose,
        "log": one_of("y") if kind == "line" else one_of("x", "y", "xy"),
        "diagonal": flag,
        "inches": inches,
        "stack": flag,
        "title": text,
    }


def _other(key: str, value: Any, known: Collection[str]) -> str:
    return f"{key} = {value!r}; it must be one of {_listed(known)}"


def _listed(known: Collection[str]) -> str:
    return ", ".join(known) if known else "(this sweep has none)"
