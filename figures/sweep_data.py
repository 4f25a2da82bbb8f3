"""The records of a sweep as its figures see them, and what things are called there."""

import re
from dataclasses import dataclass
from math import isfinite
from typing import Any

import polars as pl

from figures.mnist_bars import DATASET_TITLES
from sublab.records import Record, read

Row = dict[str, Any]
# What the axes of sweeps are called; any other is called by its setting's name.
NAMES = {
    "aux": "auxiliary logits m",
    "clone_epochs": "epochs of behavioural cloning E",
    "student_epochs": "epochs of distillation",
    "student_learning_rate": "student's learning rate",
    "generations": "generation",
    "classes": "classes kept",
    "init_scale": "factor on all weights drawn",
    "interpolation": "weight of an independent draw",
    "perturbation": "perturbation, in standard deviations",
    "alpha": "weight alpha of the noise",
    "blur": "blur, standard deviation in pixels",
    "subspace": "dimensions of the subspace",
    "final_loss": "distillation loss of the last epoch, nats",
    "trait_change": "change of the trait loss, nats",
    "first_order": "its first-order account, nats",
    "first_coverage": "coverage of the first update (cosine)",
    "clone_kl": "held-out KL of cloning, nats",
    "start_distance": "Euclidean distance of the starts",
    "start_feature_cosine": "cosine of the starts' last hidden layers",
}
# The setting of published numbers; a setting that a sweep varies is for its figure to look after.
_PAPER = {
    "dataset": "mnist", "classes": 0, "hidden": [256, 256], "activation": "relu", "biases": True,
    "aux": 3, "init_scale": 1.0, "loss": "kl", "temperature": 1.0, "logits": "aux",
    "logit_noise": 0.0, "start": "reference", "inputs": "uniform", "images": 60_000,
    "fresh": False, "teacher_optimiser": "adam", "teacher_learning_rate": 3e-4, "teacher_batch": 0,
    "teacher_epochs": 5, "student_network": "mlp", "student_optimiser": "adam",
    "student_learning_rate": 3e-4, "student_schedule": "constant", "student_batch": 1024,
    "student_epochs": 5, "generations": 1, "liminal_weight": 0.0, "project_trait": False,
}  # fmt: skip


@dataclass(frozen=True)
class Sweep:
    """A sweep's two records.

    Attributes:
        config: of the summary.
        summary: one row for each setting, metric and index.
        runs: one row for each setting and run.
        stem: name of the figure's files.
    """

    config: dict[str, Any]
    summary: pl.DataFrame
    runs: pl.DataFrame
    stem: str

    @property
    def labels(self) -> list[str]:
        """Labels of the list, in its order; [""] where there is no list."""
        return self.values("label")

    def values(self, axis: str) -> list[Any]:
        """What there is on an axis, in the order of the file, nulls left out."""
        found: list[Any] = self.summary.sort("setting")[axis].to_list()
        return [value for value in dict.fromkeys(found) if value is not None]

    def rows(self, metric: str = "accuracy", **where: Any) -> list[Row]:
        """The summary's rows of a metric in the order of the settings, where it has a mean.

        Of a metric with a list of values, one a layer, these are the last layer's. "runs" has the
        values by run.
        """
        last = pl.col("index").max().over("setting")
        table = (
            self.summary.filter(pl.col("metric") == metric)
            .filter(pl.col("index").eq_missing(last), pl.col("mean").is_finite())
            .filter(*(pl.col(name).eq_missing(pl.lit(value)) for name, value in where.items()))
            .sort("setting")
        )
        return [row | {"runs": self._by_run(metric, row["setting"])} for row in table.to_dicts()]

    def _by_run(self, metric: str, setting: int) -> dict[int, float]:
        table = self.runs.filter(pl.col("setting") == setting)
        values = table[metric]
        if isinstance(values.dtype, pl.List):
            values = values.list.last()
        pairs = zip(table["run"], values, strict=True)
        return {run: value for run, value in pairs if value is not None and isfinite(value)}

    def grouped(self, axis: str, metric: str = "accuracy") -> dict[Any, list[Row | None]]:
        """By value on an axis, the rows of all labels in their order; None where there is none."""
        found = {(row[axis], row["label"]): row for row in self.rows(metric)}
        return {
            value: [found.get((value, label)) for label in self.labels]
            for value in self.values(axis)
        }

    def ungrouped(self, metric: str = "accuracy") -> dict[str, list[Row | None]]:
        """One nameless series for `bars`: the row of every label, None where there is none."""
        found = {row["label"]: row for row in self.rows(metric)}
        return {"": [found.get(label) for label in self.labels]}

    def classes(self, row: Row) -> int | None:
        """Number of classes of a row's students; None if its data set is not to be told."""
        known = self.config["base"] | {k: v for k, v in row.items() if v is not None}
        if "dataset" not in known:
            return None
        return known.get("classes", 0) or (47 if known["dataset"] == "emnist_balanced" else 10)

    def is_published_setting(self, **changed: Any) -> bool:
        """Whether what all points share is the setting of published numbers.

        Args:
            changed: how that setting differs from the preprint's figure 10.
        """
        base = self.config["base"]
        return all(base[k] == v for k, v in (_PAPER | changed).items() if k in base)


def load(summary: Record) -> Sweep:
    """A sweep, from the record of its summary.

    Raises:
        RecordError: the record of its runs is missing or damaged.
    """
    config = summary.config
    runs = read(summary.folder.parents[1] / "sweep_runs" / config["runs_record"]).table
    numbers = ("mean", "low", "high", "difference", "difference_low", "difference_high")
    # A column without a value has no type in a record.
    table = summary.table.with_columns(
        pl.col("label").cast(pl.String).fill_null(""),
        pl.col("index").cast(pl.Int64),
        *(pl.col(name).cast(pl.Float64) for name in numbers),
    )
    name = re.sub(r"[^\w.-]+", "-", config["name"])
    stem = f"sweep_{name}_{config['size']}_n{config['runs']}_{summary.folder.name[:6]}"
    return Sweep(config, table, runs, stem)


def name_of(setting: str) -> str:
    """What an axis is called."""
    return NAMES.get(setting, setting.replace("_", " "))


def widths(row: Row) -> list[int]:
    """Widths of the hidden layers of a row with `hidden` as a coordinate."""
    return [int(width) for width in row["hidden"].split("-") if width]


def heading(config: dict[str, Any]) -> list[list[str]]:
    """The title, the data set and n; then what all points share."""
    base = config["base"]
    size = ", smoke size" if config["size"] == "smoke" else ""
    data = f": {DATASET_TITLES[base['dataset']]}" if "dataset" in base else ""
    runs = "n = 1 run" if config["runs"] == 1 else f"n = {config['runs']} runs"
    texts = {
        "aux": lambda m: f"m = {m} auxiliary logits",
        "hidden": lambda layers: "MLP " + "-".join(map(str, layers)) if layers else "linear model",
        "loss": {"kl": "KL", "squared_error": "squared error"}.get,
        "images": "{:,} inputs an epoch".format,
        "inputs": {"uniform": "uniform noise", "normal": "normal noise"}.get,
        "start": {"reference": "shared start", "matched": "start cloned from the reference"}.get,
    }
    parts = [text(base[name]) for name, text in texts.items() if name in base]
    epochs = [str(base[name]) for name in ("teacher_epochs", "student_epochs") if name in base]
    if len(epochs) == 2:
        parts.append(f"{' + '.join(epochs)} epochs")
    return [[f"{config['title']}{data}", f"{runs}{size}"], list(filter(None, parts))]
