"""`sublab results`: small tables of recorded results, and the documents that quote them.

`export` writes the summary of every experiment in a results folder as two files:

    <name>.csv    a row a point and metric: where it stands on the axes, n, mean, interval
    <name>.json   what it is of: title, size, runs, seed, versions, processor, published values

Equal records give equal bytes, so that the files can be kept in a repository. `fill` writes the
marked places of Markdown pages anew from them (`experiments.docs`).
"""

import csv
import io
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import tyro

from experiments import docs
from figures.spec import runs_in_words
from sublab import records
from sublab.console import say
from sublab.errors import InputError
from sublab.statistics import summarise

DATA = Path("docs/data")
_SWEEP, _VERIFY = "sweep_summary", "verify_summary"
_LLM = tuple(
    f"llm_{name}_summary" for name in ("numbers", "cross_model", "in_context", "ingredients")
)
_SMOKE = "smoke"
# How a language model becomes a teacher where nothing else is said.
_TEACHER = "prompt"
# And which model it is, and of which size, likewise.
_MODEL, _SIZE = "embedded", "cpu"
_NUMBERS = ("n", "mean", "low", "high", "difference", "difference_low", "difference_high")
# A metric that is a longer list, such as a cosine at every step, is summed up over its places.
_LONG = 16
# What is said of such a list in the column `index`.
MEAN, POSITIVE = "mean", "share above 0"


@dataclass(frozen=True)
class ExportOptions:
    """Write small tables of recorded results, as CSV, with what they are of beside them."""

    out: Path = Path("results")
    """Folder with the records."""
    to: Path | None = None
    """Folder for the tables (tables in the folder with the records)."""
    figures: Path | None = None
    """Folder for the figures of the same records, which `sublab figures` has drawn, as PNG."""
    smoke: bool = False
    """Export sweeps of smoke size too, whose numbers say nothing but that the code runs."""


@dataclass(frozen=True)
class FillOptions:
    """Write the marked places of Markdown pages anew: numbers and tables, from exported tables."""

    pages: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Markdown pages, each written in its place."""
    data: Path = DATA
    """Folder with the exported tables."""


@dataclass(frozen=True)
class ResultOptions:
    """Tables of recorded results, and the documents that quote them."""

    action: Annotated[
        Annotated[ExportOptions, tyro.conf.subcommand("export", prefix_name=False)]
        | Annotated[FillOptions, tyro.conf.subcommand("fill", prefix_name=False)],
        tyro.conf.arg(name=""),
    ]


OPTIONS = ResultOptions


def main(options: ResultOptions) -> int:
    """Exports tables, or fills pages; returns the exit status.

    Raises:
        InputError: there is nothing to export, or a mark of a page is wrong.
        RecordError: a record is damaged.
    """
    if isinstance(options.action, ExportOptions):
        for path in export(options.action):
            print(f"table: {path}")
        return 0
    for page in options.action.pages:
        if docs.write(page, options.action.data):
            print(f"page: {page}")
    return 0


def export(options: ExportOptions) -> list[Path]:
    """Writes the tables of everything that is recorded in `options.out`; returns the CSV files.

    Of several summaries of one name, the one with most runs is taken, and of those the latest; a
    preset with settings that the command line changed is left out.

    Raises:
        InputError: there is nothing to export.
        RecordError: a record is damaged, or a folder cannot be written.
    """
    folder = options.to or options.out / "tables"
    summaries = _latest(options)
    if not summaries:
        raise InputError(
            f"{options.out}: no results to export; run `sublab mnist`, `sublab sweep` or "
            f"`sublab verify` first (of smoke size with --smoke)"
        )
    paths = []
    for name, summary in sorted(summaries.items()):
        kind = summary.config["experiment"]
        if kind == _SWEEP:
            columns, rows, about = _of_sweep(summary)
        else:
            columns, rows, about = _of_table(summary)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}.csv"
            path.write_text(_csv(columns, rows), "utf-8")
            about = about | _circumstances(summary)
            text = json.dumps(about, indent=1, sort_keys=True, ensure_ascii=False)
            path.with_suffix(".json").write_text(f"{text}\n", "utf-8")
            if options.figures is not None:
                _copy_figures(summary, name, options.figures)
        except OSError as error:
            raise records.RecordError(
                f"{error.filename}: cannot be written ({error.strerror})"
            ) from None
        paths.append(path)
    return paths


def _latest(options: ExportOptions) -> dict[str, records.Record]:
    """By name, the summary that is exported."""
    chosen: dict[str, records.Record] = {}
    for kind in (_SWEEP, _VERIFY, *_LLM):
        by_name: dict[str, list[records.Record]] = {}
        for record in records.read_all(options.out, kind):
            config = record.config
            name = config.get("name") if kind == _SWEEP else _name_of(kind, config)
            if config.get("size") == _SMOKE and not options.smoke:
                continue
            if changes := config.get("changes"):
                say(f"{name} with {', '.join(changes)}: left out, it is another experiment")
                continue
            by_name.setdefault(str(name), []).append(record)
        for name, summaries in by_name.items():
            best = max(summaries, key=lambda record: (_runs(record), _finished(record)))
            if len(summaries) > 1:
                say(
                    f"{name}: of {len(summaries)} summaries, the one of {_runs(best)} runs, "
                    f"{_finished(best)} ({best.folder.name})"
                )
            chosen[name] = best
    return chosen


def _name_of(kind: str, config: Mapping[str, Any]) -> str:
    """The name of a table that is no sweep's; other models, sizes, teachers and numbers of traits
    are other experiments."""
    name = kind.removesuffix("_summary")
    if (model := str(config.get("model", _MODEL))) != _MODEL:
        name += f"-{model}"
    if (size := config.get("size", _SIZE)) not in (_SIZE, _SMOKE):
        name += f"-{size}"
    teacher = config.get("setting", {}).get("teacher_by", _TEACHER)
    if teacher != _TEACHER:
        name += f"-{teacher}"
    traits = len(config.get("traits", ()))
    return f"{name}-{traits}-traits" if traits > 1 else name


def _runs(record: records.Record) -> int:
    return int(record.config.get("runs", record.config.get("instances", 0)))


def _finished(record: records.Record) -> str:
    return str(record.provenance["finished"])


def _of_sweep(
    summary: records.Record,
) -> tuple[list[str], list[dict[str, Any]], dict[str, Any]]:
    """Columns, rows and circumstances of a sweep."""
    from toymlp.measures import columns_of

    config = summary.config
    points = [point["coordinates"] for point in config["points"]]
    rows = []
    for row in [*_short(summary), *_long(summary)]:
        rows.append(
            points[row["point"]] | {key: row[key] for key in ("metric", "index", *_NUMBERS)}
        )
    published = [
        {key: value for key, value in row.items() if key not in ("point", "at")}
        | {"at": None if row["point"] is None else points[row["point"]], "level": not row["at"]}
        for row in config["published"]
    ]
    about = {
        key: config[key]
        for key in (
            "title",
            "size",
            "runs",
            "seed",
            "axes",
            "axis_titles",
            "metric_titles",
            "baseline",
            "dataset_title",
            "shared",
            "measure",
        )
    }
    shares = [name for name, column in columns_of(config["measure"]).items() if column.share]
    about |= {"n": runs_in_words(config), "shares": shares, "published": published}
    return [*config["axes"], "metric", "index", *_NUMBERS], rows, about


def _short(summary: records.Record) -> list[dict[str, Any]]:
    """The rows of a summary, without those of long lists."""
    places = pl.col("index").max().over("point", "metric").fill_null(0)
    return summary.table.filter(places < _LONG).to_dicts()


def _long(summary: records.Record) -> list[dict[str, Any]]:
    """Of every metric that is a long list, its mean over the places, and how many are positive."""
    long = summary.table.filter(pl.col("index") >= _LONG)["metric"].unique(maintain_order=True)
    if not len(long):
        return []
    results = summary.folder.parents[1]
    runs = records.read(results / "sweep_runs" / summary.config["runs_record"]).table
    pairs = summary.table.drop_nulls("baseline").select("point", "baseline").unique()
    baseline = {(point,): (other,) for point, other in pairs.iter_rows()}
    rows: list[dict[str, Any]] = []
    for metric in long:
        values = pl.col(metric)
        parts = {MEAN: values.list.mean(), POSITIVE: values.list.eval(pl.element() > 0).list.mean()}
        for name, value in parts.items():
            by_run = runs.drop_nulls(metric).select(
                "point",
                "run",
                pl.lit(metric).alias("metric"),
                pl.lit(None, pl.Int64).alias("index"),
                value.cast(pl.Float64).alias("value"),
            )
            means = summarise(by_run, ["point"], baseline=baseline)
            rows += means.with_columns(pl.lit(name).alias("index")).to_dicts()
    return rows


def _of_table(summary: records.Record) -> tuple[list[str], list[dict[str, Any]], dict[str, Any]]:
    """Columns, rows and circumstances of a summary that is exported as it is."""
    columns = summary.table.columns
    plain = (str, int, float, bool)
    about = {key: value for key, value in summary.config.items() if isinstance(value, plain)}
    about.pop("experiment")
    about |= {key: summary.config[key] for key in ("shares", "traits") if key in summary.config}
    return columns, summary.table.to_dicts(), about


def _circumstances(summary: records.Record) -> dict[str, Any]:
    """What a table says of its making: no folder, no name of a machine."""
    made = summary.provenance
    return {
        "record": summary.folder.name,
        "date": _finished(summary)[:10],
        "revision": made["git"],
        "versions": made["versions"],
        "processor": made["device"]["processor"],
        "device": made["device"]["kind"],
        "data_sha256": (made.get("data") or {}).get("sha256"),
        "wall_seconds": _wall_seconds(summary),
    }


def _wall_seconds(summary: records.Record) -> float | None:
    """Seconds that making the rows under a summary took; None where their records do not say.

    Students that were trained together say the same, and count once. Teachers, clones and stages,
    which experiments share, are not counted.
    """
    results, config = summary.folder.parents[1], summary.config
    kind = config["experiment"]
    if kind == _SWEEP:
        runs = results / "sweep_runs" / config["runs_record"]
        folders = [results / "sweep" / name for name in _config(runs).get("records", ())]
    elif kind == _VERIFY:
        folders = [results / "verify" / name for name in config["records"]]
    else:
        folders = [results / kind.removesuffix("_summary") / config["rows"]]
    said = set()
    for folder in folders:
        try:
            made = json.loads((folder / "provenance.json").read_bytes())
            said.add((str(made["finished"]), float(made["wall_seconds"])))
        except (OSError, ValueError, KeyError, TypeError):
            return None
    return round(sum(seconds for _, seconds in said), 1) if said else None


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        return json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_text(row[column]) for column in columns])
    return stream.getvalue()


def _text(value: Any) -> str:
    """A value as a table has it: six digits of a number, the parts of a list with hyphens."""
    if value == []:
        return "none"
    value = records.cell(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _copy_figures(summary: records.Record, name: str, folder: Path) -> None:
    """Copies the PNG figures of a summary, under names that do not change with its record."""
    drawn = summary.folder.parents[1] / "figures"
    mark = summary.folder.name[:6]
    paths = sorted(drawn.glob(f"*_{mark}.png"))
    if not paths:
        say(f"{name}: no figure in {drawn}; `sublab figures` draws it")
    for path in paths:
        folder.mkdir(parents=True, exist_ok=True)
        kept = path.name.removesuffix(f"_{mark}.png")
        if summary.config["experiment"] != _SWEEP:
            kept = kept.replace(summary.config["experiment"].removesuffix("_summary"), name)
        else:
            kept = kept.removesuffix(f"_{summary.config['size']}_n{summary.config['runs']}")
        shutil.copyfile(path, folder / f"{kept}.png")
