"""Claims about `benchmarks/peers.py` and `benchmarks/timetable.py`, on commands that do little."""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import decoder, peers, timetable
from llm_harness.decoder.network import DecoderConfig
from sublab.errors import InputError


def python(program):
    return [sys.executable, "-S", "-c", program]


def test_a_command_is_timed_with_its_own_threads_alone_and_on_the_cores_that_it_may_use():
    busy = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    seconds, _ = peers.finished(python(busy), [0])
    assert seconds.processor >= 0.3
    # On one core no process has more processor time than there was time, up to the clock's steps.
    assert seconds.wall >= seconds.processor - 0.1
    idle, _ = peers.finished(python("import time; time.sleep(0.3)"), [0])
    assert idle.wall >= 0.3 > idle.processor
    count = "import os, sys; sys.exit(0 if len(os.sched_getaffinity(0)) == 1 else 7)"
    peers.finished(python(count), [0])


def test_a_command_that_fails_is_said_with_its_last_line_but_a_verdict_is_no_failure():
    verdict, crash = python("raise SystemExit(1)"), python("print('begun'); 1 / 0")
    peers.finished(verdict, [0], verdicts=True)
    with pytest.raises(InputError, match="failed: ZeroDivisionError"):
        peers.finished(crash, [0], verdicts=True)
    # Of a program that gives no verdicts, status 1 is a failure.
    for failed, said in ((verdict, ""), (crash, "ZeroDivisionError")):
        with pytest.raises(InputError, match=f"failed: {said}"):
            peers.finished(failed, [0])
    with pytest.raises(InputError, match="failed: no such thing"):
        peers.finished(python("import sys; print('no such thing'); sys.exit(2)"), [0], True)


def test_commands_take_turns_and_every_pair_has_a_ratio(monkeypatch):
    calls = []

    def finished(command, on, verdicts=False):
        who = "ours" if "--out" in command else "theirs"
        assert verdicts == (who == "ours")
        calls.append(who)
        wall = {"ours": 2.0, "theirs": (6.0, 4.0, 10.0)[calls.count("theirs") - 1]}[who]
        return peers.Seconds(wall, 2 * wall), json.dumps({"teacher": [0.9, 1.0], "other": [0.1]})

    monkeypatch.setattr(peers, "finished", finished)
    monkeypatch.setattr(peers, "accuracies", lambda out: {"teacher": [0.9, 0.9]})
    part = peers.compared(["ours"], ["theirs"], [0], 3)
    assert calls == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert part["wall"]["ratio"] == {"median": 3.0, "least": 2.0, "most": 5.0, "n": 3}
    assert part["processor"]["theirs"] == {"median": 12.0}
    assert part["accuracy"] == {"teacher": {"ours": 0.9, "theirs": pytest.approx(0.95)}}
    assert peers.line_of("mnist", part) == (
        "mnist: wall 2 s beside 6 s, 3.00 times (2.00 to 5.00); "
        "processor 4 s beside 12 s, 3.00 times (2.00 to 5.00)"
    )


@pytest.mark.parametrize("theirs", [{}, {"teacher": 0.5}, {"teacher": float("nan")}])
def test_programs_that_did_not_do_the_same_are_not_compared(theirs):
    with pytest.raises(InputError, match=r"did not do the same: teacher has an accuracy of 0\.940"):
        peers.same_accuracies({"teacher": 0.94}, theirs)


def test_every_process_of_a_sweep_is_counted_and_each_has_a_core_of_its_own(monkeypatch):
    given = []

    def finished(command, on):
        given.append((command[-3:-1], *on))
        return peers.Seconds(1, 1), "0.5"

    monkeypatch.setattr(peers, "finished", finished)
    seconds, done = peers._side_by_side(Path("python"), Path("data.npz"), peers.POINTS * 2, [0, 1])
    assert done == len(given) == 2 * len(peers.STEPS)
    assert seconds > 0
    assert {place for _, place in given} <= {0, 1}
    # The mean number of steps is that of the whole grid.
    assert sorted(int(steps) for (_, steps), _ in given) == sorted(peers.STEPS * 2)


def test_figures_are_added_to_those_of_the_same_machine_and_versions_alone(tmp_path):
    libraries, path = {"torch": "2.0"}, tmp_path / "peers.json"
    assert peers.kept_figures(path, libraries) == {"size": "full", "torch": "2.0"}
    figures = {"size": "full", "torch": "2.0", "sweep": {}} | {
        "made_by": peers.provenance(wall_seconds=1.0)
    }
    path.write_text(json.dumps(figures))
    assert peers.kept_figures(path, libraries) == figures
    for wrong in ({"torch": "1.9"}, {"made_by": {"device": {"processor": "?"}, "versions": {}}}):
        path.write_text(json.dumps(figures | wrong))
        with pytest.raises(InputError, match="another machine or other versions"):
            peers.kept_figures(path, libraries)


def test_where_a_library_is_missing_it_is_said_how_to_get_it(tmp_path):
    for python in (tmp_path / "python", Path(sys.executable)):
        with pytest.raises(InputError, match=r"pip install torch transformers.*--python PATH"):
            peers.check_libraries(python)


def test_tokens_a_second_of_two_programs_have_a_ratio_for_each_pair(monkeypatch):
    given = []

    def finished(command, on):
        ours = command[-1] == "benchmarks.decoder"
        given.append(command)
        rate = 6.0 if ours else (3.0, 2.0)[sum("decoder.py" in one[1] for one in given) - 1]
        return peers.Seconds(1, 1), json.dumps({"forward": rate, "sampling": 2 * rate})

    monkeypatch.setattr(peers, "finished", finished)
    part = peers._decoder(peers.PeersBenchmark(pairs=2))
    assert part["tokens_a_second"]["sampling"] == {
        "ours": 12.0,
        "theirs": 5.0,
        "ratio": {"median": 2.5, "least": 2.0, "most": 3.0, "n": 2},
    }
    assert peers.line_of("decoder", part).startswith(
        "decoder: forward: 6 tokens a second beside 2, 2.50 times (2.00 to 3.00)"
    )
    # The other program is told of the same sizes and amounts.
    told = json.loads(next(one for one in given if one[-1] != "benchmarks.decoder")[-1])
    assert told["amounts"] == decoder.AMOUNTS
    assert told["sizes"] == asdict(decoder.SMOLLM2)


def test_a_ratio_of_one_pair_has_no_range():
    ratio = {"median": 1.5, "least": 1.5, "most": 1.5, "n": 1}
    part = {"runs_an_hour": {"ours": 3000.0, "theirs": 2000.0}, "ratio": ratio}
    line = "sweep: 3,000 runs an hour beside 2,000, 1.50 times (one pair)"
    assert peers.line_of("sweep", part) == line


@pytest.mark.slow
def test_two_precisions_are_compared_in_time_and_in_what_they_measure():
    part = peers._rounded(peers.PeersBenchmark(rounded_runs=2, pairs=1), "smoke")
    assert part["wall"]["ratio"]["n"] == 1
    conditions = ("student, aux logits", "student, all logits")
    crossed = ("cross-model, aux logits", "cross-model, all logits")
    assert part["equivalence"].keys() == {"teacher", *conditions, *crossed}
    assert part["equivalence"]["teacher"]["margin"] == 0.002
    assert "within 0.002" in peers.line_of("bfloat16", part)
    with pytest.raises(InputError, match="two runs"):
        peers.main(peers.PeersBenchmark(rounded_runs=1))


def test_the_decoder_of_the_comparison_is_measured_at_any_size():
    speed = decoder.DecoderSpeed(DecoderConfig(vocabulary=16), length=8)
    assert speed.parameters > 16 * DecoderConfig.width
    assert min(speed.reading(2), speed.adapting(2), speed.drawing(2, 2)) > 0


def test_a_part_has_the_time_that_no_part_inside_it_has():
    clock = timetable.Clock()
    inner = clock.timed("inner", lambda: time.sleep(0.2))

    def both():
        time.sleep(0.1)
        inner()
        time.sleep(0.1)
        # The shorter event is inside the longer one.
        clock.ended("compile", 0.02)
        clock.ended("compile", 0.05)

    clock.timed("outer", both)()
    clock.begin("rest")
    spent = {part: seconds["wall"] for part, seconds in clock.spent.items()}
    assert spent["inner"] >= 0.2
    assert spent["compile"] == pytest.approx(0.05)
    assert 0.15 <= spent["outer"] < 0.5
    assert all(seconds["processor"] > -0.05 for seconds in clock.spent.values())
    assert spent["rest"] < 0.1


def test_every_function_that_stands_for_a_part_is_there():
    for places in timetable.PARTS.values():
        for place in places:
            assert callable(timetable.found(place)[2])
