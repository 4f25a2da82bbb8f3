"""What is known of each experiment: its exported table, checked, with numbers in place of texts."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.docs import ResultTable, read_table
from experiments.report.claims import experiments
from experiments.results import ExportOptions, export
from sublab import records
from sublab.errors import InputError
from sublab.statistics import mean_interval

_NUMBERS = ("n", "mean", "low", "high", "difference", "difference_low", "difference_high")
_WHOLE = ("n", "instances", "violations")
_OF_VERIFY = ("instances", "violations", "bound", "worst", "median", "low", "high")
_SAID = ("record", "date", "versions", "processor", "device", "revision", "seed")
_OF_SWEEP = ("axes", "axis_titles", "metric_titles", "published", "title", "runs")
# Circumstances that older tables do not have.
_LATER = {"wall_seconds": None, "data_sha256": None, "shares": ()}


@dataclass(frozen=True)
class Evidence:
    """The exported table of one experiment.

    Attributes:
        name: of the experiment.
        about: what the table is of.
        columns: names of the columns, in their order.
        rows: by column, numbers where the column has numbers (None for an empty cell), else texts.
        texts: the same rows as they are written in the table.
    """

    name: str
    about: Mapping[str, Any]
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    texts: tuple[Mapping[str, str], ...]

    def where(self, metric: str, at: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The rows of a metric (no list) that are so on the axes."""
        return [
            row
            for row in self.rows
            if row.get("metric") == metric
            and not row.get("index")
            and all(_same(row.get(key), value) for key, value in at.items())
        ]

    def row(self, metric: str, at: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The one row that is so; None where there is none."""
        rows = self.where(metric, at)
        return rows[0] if len(rows) == 1 else None

    def is_share(self, metric: str) -> bool:
        """Whether the means of a metric are shares, whose intervals lie within [0, 1]."""
        return metric in self.about["shares"]


def of_records(out: Path) -> dict[str, Evidence]:
    """What the records in a folder say, by experiment.

    Raises:
        InputError: there are no records of any claim.
        RecordError: a record is damaged.
    """
    if not out.is_dir():
        raise InputError(
            f"{out}: there is no such folder; run `sublab mnist` first, or name the one with the "
            f"records by --out, or one with tables by --from"
        )
    with tempfile.TemporaryDirectory() as folder:
        try:
            export(ExportOptions(out=out, to=Path(folder)))
        except records.RecordError:
            raise
        except InputError:
            # Nothing to export: no record at all, or of smoke size alone.
            raise _nothing(out, "records") from None
        tables = _tables(Path(folder))
    if not tables:
        raise _nothing(out, "records")
    return tables


def of_tables(folder: Path) -> dict[str, Evidence]:
    """What the tables in a folder say, by experiment, as `sublab results export` wrote them.

    Raises:
        InputError: there is no table of any claim, or one is damaged.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; --from names one with tables")
    tables = _tables(folder)
    if not tables:
        raise _nothing(folder, "tables of `sublab results export`")
    return tables


def _nothing(folder: Path, what: str) -> InputError:
    return InputError(
        f"{folder}: no {what} of an experiment that the paper has; run `sublab mnist`, `sublab "
        f"verify`, `sublab sweep` or `sublab llm` first, larger than smoke size"
    )


def _tables(folder: Path) -> dict[str, Evidence]:
    tables = {name: read_table(folder, name) for name in experiments()}
    return {
        name: _checked(folder / name, table) for name, table in tables.items() if table is not None
    }


def _checked(path: Path, table: ResultTable) -> Evidence:
    """A table with numbers in place of texts.

    Raises:
        InputError: a cell or something that is to be said of the table is missing or wrong.
    """
    try:
        about = _LATER | dict(table.about)
        verified = table.name == "verify"
        of_sweep = not verified and not table.name.startswith("llm_")
        for key in (*_SAID, *(_OF_SWEEP if of_sweep else ())):
            if key not in about:
                raise ValueError(f"it says no {key}")
        if not table.rows:
            raise ValueError("no rows")
        numbers = _OF_VERIFY if verified else _NUMBERS
        columns = tuple(table.rows[0])
        if missing := [
            name for name in (*numbers, "name" if verified else "metric") if name not in columns
        ]:
            raise ValueError(f"no column {missing[0]}")
        rows = [_row(row, numbers, line) for line, row in enumerate(table.rows, 2)]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged table ({error}); export it again") from None
    return Evidence(table.name, about, columns, tuple(rows), tuple(table.rows))


def _row(row: Mapping[str, Any], numbers: Sequence[str], line: int) -> dict[str, Any]:
    if None in row or None in row.values():
        raise ValueError(f"line {line} has not as many cells as there are columns")
    return {key: _number(key, text, line) if key in numbers else text for key, text in row.items()}


def _number(key: str, text: str, line: int) -> float | int | None:
    if text == "":
        return None
    try:
        number = int(text) if key in _WHOLE else float(text)
    except ValueError:
        raise ValueError(f"line {line}: {key} is {text!r}, which is no number") from None
    if not isfinite(number):
        raise ValueError(f"line {line}: {key} is {text}, which is not finite")
    return number


def _same(ours: Any, wanted: Any) -> bool:
    """Whether a cell is a value: 100 and 1e2 are."""
    if ours is None:
        return False
    try:
        return float(ours) == float(wanted)
    except ValueError:
        return str(ours) == str(wanted)


# Samples that stand for those that were measured.


def sample_of(row: Mapping[str, Any], share: bool) -> Float[np.ndarray, " n"] | None:
    """A sample with the size, mean and standard deviation of the one behind a row's mean.

    Student's and Welch's tests look at these three alone, so that they say of it what they say of
    the runs, which a table does not have.

    Args:
        row: with `n`, `mean`, and `low` and `high` of two runs and more.
        share: whether the interval was made on the logit scale.

    Returns:
        The sample; None of fewer than two runs.
    """
    return _sample(row["n"], row["mean"], row["low"], row["high"], share)


def differences_of(row: Mapping[str, Any]) -> Float[np.ndarray, " n"] | None:
    """The same for a row's paired differences; None of fewer than two, or where it has none."""
    ends = row["difference_low"], row["difference_high"]
    return _sample(row["n"], row["difference"], *ends, share=False)


def _sample(
    n: int | None, mean: float | None, low: float | None, high: float | None, share: bool
) -> Float[np.ndarray, " n"] | None:
    if n is None or n < 2 or mean is None or low is None or high is None:
        return None
    pattern = np.linspace(-1.0, 1.0, n)
    pattern /= np.std(pattern, ddof=1)
    # Of standard deviation 1: our interval is wider by our deviation, on the scale on which it is
    # even.
    unit = mean_interval(pattern)
    assert unit.low is not None
    assert unit.high is not None
    width = unit.high - unit.low
    if share and low > 0 and high < 1:
        logits = np.log(high / (1 - high)) - np.log(low / (1 - low))
        std = logits * mean * (1 - mean) / width
    else:
        std = (high - low) / width
    return mean + std * pattern
