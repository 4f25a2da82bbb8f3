"""What `sublab verify` prints."""

from rich.markup import escape

from sublab import records
from sublab.console import new_table, print_table

_VERDICTS = {
    "claim": {True: "holds", False: "VIOLATED", None: "-"},
    "order": {True: "is 2", False: "IS NOT 2", None: "none"},
    "rank": {True: "above 1/2", False: "NOT ABOVE 1/2", None: "too few"},
    "control": {True: "violated", False: "NOT VIOLATED", None: "too few"},
}


def print_claims(summary: records.Record) -> None:
    """Claims, orders and controls of the verification."""
    rows = {kind: summary.table.filter(kind=kind).to_dicts() for kind in _VERDICTS}
    # Of the statement alone: with its name beside it, it is folded to shreds in a terminal.
    claims = new_table(["claim"], ["instances", "violations", "bound", "worst", "verdict"])
    for row in rows["claim"]:
        side = ">" if row["above"] else "≤"
        worst = "-" if row["worst"] is None else f"{row['worst']:.3g}"
        claims.add_row(
            escape(row["statement"]),
            f"{row['instances']:,}",
            f"{row['violations'] or 0:,}",
            f"{side} {row['bound']:g}",
            worst,
            _VERDICTS["claim"][row["holds"]],
        )
    orders = new_table(
        ["order of the remainder"],
        ["instances", "pooled", "median", "1 % .. 99 %", "within 0.05", "R²", "verdict"],
    )
    for row in rows["order"]:
        cells = ["-"] * 5
        if row["instances"]:
            cells = [
                f"{row['worst']:.4f}",
                f"{row['median']:.4f}",
                f"{row['low']:.3f} .. {row['high']:.3f}",
                f"{100 * row['share_near']:.1f} %",
                f"{row['r2']:.5f}",
            ]
        verdict = _VERDICTS["order"][row["holds"]]
        orders.add_row(escape(row["statement"]), f"{row['instances']:,}", *cells, verdict)
    controls = new_table(
        ["negative control"],
        ["instances", "holds in", "95 % interval", "condition missed", "verdict"],
    )
    for row in rows["control"]:
        share, interval = "-", "-"
        if row["instances"]:
            share, interval = f"{row['median']:.3f}", f"{row['low']:.3f} .. {row['high']:.3f}"
        controls.add_row(
            escape(row["statement"]),
            f"{row['instances']:,}",
            share,
            interval,
            row["named"] or "-",
            _VERDICTS["control"][row["holds"]],
        )
    ranks = new_table(["rank"], ["instances", "aligned in", "95 % interval", "verdict"])
    for row in rows["rank"]:
        share, interval = "-", "-"
        if row["instances"]:
            share, interval = f"{row['median']:.3f}", f"{row['low']:.3f} .. {row['high']:.3f}"
        verdict = _VERDICTS["rank"][row["holds"]]
        ranks.add_row(row["name"], f"{row['instances']:,}", share, interval, verdict)
    count, trained, seed = (summary.config[name] for name in ("instances", "trained", "seed"))
    print_table(
        f"Claims of the theory on {count:,} random instances of one step and {trained:,} that are "
        f"trained, seed {seed}",
        claims,
    )
    print_table("", orders)
    print_table("Settings in which a theorem must fail", controls)
    print_table("LoRA adapters of teacher and student, inner factors drawn apart", ranks)
    print(f"records: {summary.folder.parents[1]}")
