"""Claims about programs that are compiled while other models are in training."""

import threading
from collections import Counter

import jax
import pytest

from experiments.sweep.ahead import compiling_ahead
from experiments.sweep.plan import Population
from tests.experiments.sweep.small import BASE, sweep
from toymlp.settings import PREPRINT, teacher_of

KINDS = {
    "plain": "",
    "several teachers": "[grid]\nteacher.learning_rate = [1e-2, 2e-2]\n",
    "clone": 'start = { kind = "matched", shared = ["class_head"], clone.inputs.count = 256 }\n',
    "liminal": "interventions.liminal.weight = 1.0\n",
    "trait gradient": "interventions.project_trait = true\n",
    "other network": 'start = "independent"\nstudent_model.activation = "gelu"\n',
}


@pytest.fixture
def compiled():
    """Programs of epochs that are compiled, by the kind of thread that does."""
    counts: Counter[str] = Counter()

    def listen(event: str, duration_secs: float, **kwargs: str | int):
        del duration_secs
        of = str(kwargs.get("fun_name"))
        if event.endswith("backend_compile_duration") and "_epoch" in of:
            main = threading.current_thread() is threading.main_thread()
            counts["main" if main else "ahead"] += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield counts
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("kind", KINDS)
def test_all_programs_but_the_first_are_there_when_their_turn_comes(kind, tmp_path, compiled):
    jax.clear_caches()
    text = BASE + KINDS[kind]
    outcome = sweep(tmp_path, text, runs=1)
    assert outcome.table["accuracy"].null_count() == 0
    stages = 3 if kind == "clone" else 2
    assert compiled == {"main": 1, "ahead": stages - 1}


def test_what_fails_ahead_is_left_to_the_one_whose_turn_it_is():
    asked = []

    def context_of(population):
        asked.append(population)
        raise MemoryError

    teachers = Population(((teacher_of(PREPRINT), 0),))
    students = Population(((PREPRINT, 0),))
    with compiling_ahead((teachers, students), context_of) as begins:
        begins(teachers)
        begins(students)
    assert asked == [students]
