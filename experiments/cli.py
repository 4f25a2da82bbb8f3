"""The command line: `sublab <command> [options]`.

A command is a line of `COMMANDS`: its help, and the module that is imported when it is chosen, so
that `sublab --help` needs neither JAX nor anything else that takes seconds.

Exit status: 0 fine; 1 a claim did not hold, or a run failed; 2 bad arguments, input or environment,
with one line on the error stream.
"""

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from typing import Any

from llm_harness.errors import HarnessError
from sublab.errors import InputError


@dataclass(frozen=True)
class Command:
    """A command, and where it is found.

    Attributes:
        help: one line on what it does.
        module: module that is imported when the command is chosen.
        options: name in the module of a dataclass, or of a union of them, for tyro.
        main: name in the module of the function from options to exit status.
    """

    help: str
    module: str
    options: str = "OPTIONS"
    main: str = "main"


COMMANDS: dict[str, Command] = {
    "mnist": Command(
        "the paper's MNIST experiment in six conditions, with its verdict",
        "experiments.sweep.command",
        "MNIST_OPTIONS",
        "mnist_main",
    ),
    "verify": Command(
        "the theory's claims on random models, data and losses, with negative controls",
        "experiments.verify.command",
    ),
    "sweep": Command(
        "any variation of the MNIST experiment, from a preset or a file of your own",
        "experiments.sweep.command",
    ),
    "llm": Command(
        "the language-model experiments, on a model trained on the spot or a checkpoint",
        "experiments.llm.command",
    ),
    "reproduce": Command(
        "the theory verified and the MNIST experiment at the paper's settings",
        "experiments.reproduce",
    ),
    "figures": Command(
        "draw the figures of every record in a folder again, or the paper's in its layout",
        "experiments.figures_command",
    ),
    "results": Command(
        "tables of recorded results, a row a setting, as CSV",
        "experiments.results",
    ),
    "report": Command(
        "the paper's claims against the records, on one page that needs nothing else",
        "experiments.report.command",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # Notebooks export a backend of their own, which need not be installed here; we write files.
    os.environ["MPLBACKEND"] = "agg"
    try:
        return _run(arguments)
    except (InputError, HarnessError) as error:
        print(f"sublab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sublab: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _run(arguments: Sequence[str]) -> int:
    if not arguments:
        raise InputError(f"name a command: {', '.join(COMMANDS)} (sublab --help)")
    name, *rest = arguments
    if name in ("--help", "-h"):
        print(_help())
        return 0
    if name == "--version":
        print(f"sublab {version('subliminal-lab')}")
        return 0
    run, options = parse(name, rest)
    return run(options)


def parse(name: str, arguments: Sequence[str]) -> tuple[Callable[[Any], int], Any]:
    """The function of the command `name`, and its options as `arguments` say them.

    Raises:
        InputError: the command or an argument is unknown, or an argument is missing or wrong.
        SystemExit: the arguments ask for help, which is printed.
    """
    if name not in COMMANDS:
        raise InputError(
            f"unknown command {name!r}{_nearest(name, COMMANDS)}; the commands are "
            f"{', '.join(COMMANDS)}"
        )
    options, run = _imported(COMMANDS[name])
    return run, _parsed(name, options, arguments)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: sublab COMMAND [options]",
            "",
            "Subliminal learning, reproduced: experiments, records, figures.",
            "",
            "commands:",
            *lines,
            "",
            "sublab COMMAND --help lists the options of a command; sublab --version says which",
            "version this is. Exit status: 0 fine; 1 a claim did not hold, or a run failed; 2 bad",
            "arguments, input or environment.",
        ]
    )


def _imported(command: Command) -> tuple[Any, Callable[[Any], int]]:
    """The options and the function of a command.

    Raises:
        InputError: a variable of the environment has a value that JAX refuses when it is imported.
    """
    try:
        module = import_module(command.module)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        if "JAX" not in reason:
            raise
        raise InputError(f"a variable of the environment is wrong: {reason}") from None
    return getattr(module, command.options), getattr(module, command.main)


def _parsed(name: str, options: Any, arguments: Sequence[str]) -> Any:
    """What the arguments say, as one of `options`.

    Raises:
        InputError: an argument is unknown, missing or of the wrong form.
    """
    import tyro

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(options, prog=f"sublab {name}", args=arguments)
    except SystemExit as stop:
        if stop.code:
            raise InputError(_one_line(said.getvalue())) from None
        raise


def _one_line(framed: str) -> str:
    """tyro's message without its frame and its title, and the subcommand that was perhaps meant."""
    sections: list[list[str]] = [[]]
    for line in framed.splitlines():
        inside = line.strip("│ ")
        if line.startswith("│") and not inside.strip("─"):
            sections.append([])
        elif line.startswith("│"):
            sections[-1].append(inside)
    texts = [" ".join(section).rstrip(".") for section in sections if section]
    wrong = re.search(r"Unrecognized options: (\S+)", "; ".join(texts))
    known = re.search(r"Available subcommands: ([^;]+)", "; ".join(texts))
    if wrong and known:
        texts[0] += _nearest(wrong[1], known[1].split(", "))
    # A subcommand's options are a field of what tyro parses.
    return "; ".join(texts).replace("'experiment.", "'") or " ".join(framed.split())


def _nearest(word: str, known: Iterable[str]) -> str:
    close = get_close_matches(word, list(known), 1)
    return f", did you mean {close[0]}?" if close else ""


if __name__ == "__main__":
    sys.exit(main())
