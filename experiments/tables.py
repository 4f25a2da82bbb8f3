"""What `sublab mnist` prints."""

from experiments import mnist
from figures import mnist_bars
from sublab.console import new_table, print_table


def print_accuracy(outcome: mnist.Outcome) -> None:
    """The six conditions, beside the paper's."""
    config = outcome.summary.config
    compared = outcome.agrees is not None
    numbers = ["n", "mean", "95 % interval", "std"]
    if compared:
        numbers += ["paper (95 %)", "difference", "allowed (99 %)", "verdict"]
    table = new_table(["condition"], numbers)
    for row in outcome.summary.table.iter_rows(named=True):
        interval = "-" if row["low"] is None else f"{row['low']:.4f} .. {row['high']:.4f}"
        std = "-" if row["std"] is None else f"{row['std']:.4f}"
        cells = [row["condition"], str(row["n"]), f"{row['mean']:.4f}", interval, std]
        if compared:
            cells += [
                f"{row['paper_mean']:.4f} ± {row['paper_half_width']:.4f}",
                f"{row['difference']:+.4f}",
                f"± {row['allowed']:.4f}",
                "agrees" if row["agrees"] else "DIFFERS",
            ]
        table.add_row(*cells)
    dataset = mnist_bars.DATASET_TITLES[config["dataset"]]
    print_table(f"Test accuracy, {dataset}, m = {config['aux']}, seed {config['seed']}", table)
    print(f"records: {outcome.summary.folder.parents[1]}")
