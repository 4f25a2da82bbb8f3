"""Claims about this machine: its devices, its settings, its compiled programs."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sublab import machine
from sublab.randomness import seed_key
from tests.xla_flags import known_flags

ROOT = Path(__file__).parents[2]


def python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh process, with nothing of this one's settings of JAX."""
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith(("JAX", "XLA"))
    }
    return subprocess.run(
        [sys.executable, "-c", program],
        env=ours | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


# --- numbers do not depend on the environment ---------------------------------------------------


def numbers() -> list[np.ndarray]:
    """What is drawn and computed where no type, generator or precision is named."""
    key = seed_key(3)
    draw = jax.random.normal(key, (64, 64))
    return [np.asarray(draw), np.asarray(draw @ draw), np.asarray(jax.random.key_data(key))]


@pytest.mark.parametrize(
    "theirs",
    [
        lambda: jax.enable_x64(True),
        lambda: jax.default_prng_impl("rbg"),
        lambda: jax.threefry_partitionable(False),
        lambda: jax.default_matmul_precision("bfloat16"),
        lambda: jax.numpy_dtype_promotion("strict"),
    ],
    ids=["x64", "rbg", "unpartitionable", "bfloat16", "strict"],
)
def test_inside_exact_the_callers_settings_change_no_number_and_are_back_afterwards(theirs):
    def settings() -> list:
        names = ("enable_x64", "default_prng_impl", "threefry_partitionable")
        names = (*names, "default_matmul_precision", "numpy_dtype_promotion")
        return [getattr(jax.config, f"jax_{name}") for name in names]

    usual = settings()

    with machine.exact():
        ours = numbers()
    with theirs():
        before = settings()
        assert before != usual
        with machine.exact():
            same = numbers()
        assert settings() == before
    for one, other in zip(ours, same, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_exact_asks_for_products_in_full_precision():
    with jax.default_matmul_precision("bfloat16"):
        ours, theirs = (
            str(jax.make_jaxpr(function)(jnp.ones((2, 2)), jnp.ones((2, 2))))
            for function in (machine.exact()(jnp.matmul), jnp.matmul)
        )
    assert "HIGHEST" in ours
    assert "HIGHEST" not in theirs


def test_exact_has_64_bits_where_they_are_asked_for():
    with machine.exact(x64=True):
        assert jnp.arange(3.0).dtype == jnp.float64
    assert jnp.arange(3.0).dtype == jnp.float32


DRAWN = (
    "import jax; from sublab.machine import exact; from sublab.randomness import seed_key\n"
    "with exact(): print(jax.random.normal(seed_key(3), (4,)).tolist())"
)


def test_the_environment_changes_no_number():
    # In one process: what is not undone of one of them is not undone by another.
    theirs = {"JAX_ENABLE_X64": "1", "JAX_DEFAULT_PRNG_IMPL": "rbg"}
    theirs |= {"JAX_THREEFRY_PARTITIONABLE": "0", "JAX_RANDOM_SEED_OFFSET": "7"}
    changed = python(DRAWN, **theirs)
    assert changed.returncode == 0, changed.stderr
    assert python(DRAWN).stdout == changed.stdout != ""


# --- devices ------------------------------------------------------------------------------------


def test_a_platform_that_is_not_there_is_an_error_that_names_the_variable():
    program = (
        "from sublab import errors, machine\n"
        "try: machine.prepare_jax()\n"
        "except errors.InputError as error: print(error)"
    )
    for platform in ("cuda", "nonsense"):
        said = python(program, JAX_PLATFORMS=platform)
        assert said.returncode == 0, said.stderr
        assert f"JAX_PLATFORMS={platform}" in said.stdout
        assert said.stdout.count("\n") == 1


# --- compiled programs --------------------------------------------------------------------------

ARM = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes {}
CPU implementer\t: 0x41
CPU part\t: 0xd0c
"""


def test_processors_are_told_apart_on_arm_and_on_x86(tmp_path):
    kinds = []
    for text in (
        ARM.format("sve"),
        ARM.format("sve2"),
        "model name\t: A\nflags\t\t: fpu avx2\n",
        "model name\t: A\nflags\t\t: fpu avx2 avx512f\n",
    ):
        (tmp_path / "cpuinfo").write_text(text)
        kinds.append(machine.processor_kind(tmp_path / "cpuinfo"))
    assert len(set(kinds)) == 4


def test_a_processor_is_the_same_at_another_clock_and_with_more_cores(tmp_path):
    one = "processor\t: {}\nmodel name\t: A\ncpu MHz\t: {}\nflags\t: fpu\n"
    kinds = []
    for text in (one.format(0, 2000), one.format(0, 1200) + one.format(1, 3000)):
        (tmp_path / "cpuinfo").write_text(text)
        kinds.append(machine.processor_kind(tmp_path / "cpuinfo"))
    assert kinds[0] == kinds[1]


def test_without_cpuinfo_the_systems_own_name_counts(tmp_path, monkeypatch):
    for name in ("Apple M2", "Apple M4"):
        monkeypatch.setattr(
            subprocess,
            "run",
            lambda command, name=name, **_: subprocess.CompletedProcess(command, 0, f"{name}\n"),
        )
        assert name in machine.processor_kind(tmp_path / "absent")


def test_another_jaxlib_has_programs_of_its_own(monkeypatch):
    here = machine.programs_folder()
    monkeypatch.setattr(machine, "version", lambda package: f"{package} 99")
    assert machine.programs_folder() != here


def test_a_second_process_finds_the_programs_of_the_first_and_says_nothing(tmp_path):
    program = """
import jax, jax.numpy as jnp
from sublab import machine
machine.prepare_jax()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
jax.jit(lambda x: jnp.tanh(x @ x).sum())(jnp.ones((64, 64))).block_until_ready()
print(sum(event.endswith("/cache_hits") for event in events))
"""
    first, second = (python(program, XDG_CACHE_HOME=str(tmp_path)) for _ in range(2))
    assert (first.returncode, first.stdout, first.stderr) == (0, "0\n", "")
    assert second.stderr == ""
    assert int(second.stdout) >= 1
    (folder,) = (tmp_path / "subliminal-lab" / "programs").iterdir()
    assert list(folder.iterdir())


# --- the tests' own environment -----------------------------------------------------------------


def test_a_flag_that_this_xla_does_not_know_is_left_out_and_asked_about_once(tmp_path, monkeypatch):
    flags = ("--xla_a_flag_of_no_version=1", "--xla_backend_optimization_level=0")
    assert known_flags(flags, tmp_path) == [flags[1]]
    monkeypatch.setattr(subprocess, "Popen", None)
    assert known_flags(flags, tmp_path) == [flags[1]]
