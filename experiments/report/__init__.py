"""`sublab report`: the paper's claims against the records, on one page that needs nothing else."""

from experiments.report.make import report as report
