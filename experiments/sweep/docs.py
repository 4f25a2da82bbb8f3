"""`python -m experiments.sweep.docs`: writes the tables of docs/sweeps.md from the types.

The page holds a pair of marks for each table; what stands between them is written anew.
"""

import re
import sys
from dataclasses import fields
from pathlib import Path

from experiments.sweep.file import parse, preset_text, presets
from toymlp.measures import ALWAYS, COLUMNS, MEASURES, columns_of
from toymlp.settings import DEFAULTS, FIELDS, Knobs, Shape, allowed


def tables() -> dict[str, str]:
    """The tables by the name of their marks."""
    return {
        "shape": _settings(Shape),
        "knobs": _settings(Knobs),
        "measurements": _measurements(),
        "presets": _presets(),
    }


def filled(page: str) -> str:
    """`page` with every table between its marks.

    Raises:
        ValueError: a mark is missing.
    """
    for name, table in tables().items():
        begin, end = f"<!-- {name}: generated -->", f"<!-- end of {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(page):
            raise ValueError(f"the page has no marks for the table {name!r}")
        page = pattern.sub(lambda _, b=begin, t=table, e=end: f"{b}\n{t}\n{e}", page)
    return page


def _settings(part: type) -> str:
    rows = ["| setting | default | allowed | meaning |", "|---|---|---|---|"]
    for item in fields(part):
        meaning = FIELDS[item.name].metadata["help"]
        rows.append(
            f"| `{item.name}` | {_toml(DEFAULTS[item.name])} | {allowed(item.name)} | "
            f"{meaning.replace('||', '‖')} |"
        )
    return "\n".join(rows)


def _measurements() -> str:
    rows = ["| measurement | column | what it is |", "|---|---|---|"]
    named = [("always", ALWAYS), *((f"`{name}`", columns_of([name])[len(ALWAYS) :])
                                   for name in MEASURES)]  # fmt: skip
    for name, columns in named:
        for column in columns:
            rows.append(f"| {name} | `{column}` | {COLUMNS[column].replace('||', '‖')} |")
    return "\n".join(rows)


def _presets() -> str:
    rows = [
        "| preset | what it varies | points | runs at smoke, cpu, paper size |",
        "|---|---|---|---|",
    ]
    for name in presets():
        smoke, cpu, paper = (
            parse(preset_text(name), name, name, size) for size in ("smoke", "cpu", "paper")
        )
        comment = [
            line.removeprefix("#").strip()
            for line in preset_text(name).splitlines()
            if line.startswith("#")
        ]
        rows.append(
            f"| `{name}` | {' '.join(comment)} | {len(cpu.points)} | "
            f"{smoke.runs}, {cpu.runs}, {paper.runs} |"
        )
    return "\n".join(rows)


def _toml(value: object) -> str:
    if value is None:
        return "left out"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else f"{value}"


if __name__ == "__main__":
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/sweeps.md")
    path.write_text(filled(path.read_text("utf-8")), "utf-8")
