import sys
import time

import numpy as np
import pytest

from benchmarks.announcing_task import ANNOUNCEMENT, AnnouncingHalfCheetah
from benchmarks.whole_run import command, lateness, observe, run_and_collection
from mbrl_async.config import build, validate
from tests.small import composed

ENDS_WHEN_TOLD = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
print("starting")
print("the first control step begins", flush=True)
signal.pause()
"""


def python(script):
    return [sys.executable, "-c", script]


def histories(**changes):
    return {
        "collect/policy_version": [0, 3, 7, 12],
        "collect/lateness_p50_ms": [90, 1, 2, 6],
        "collect/lateness_p99_ms": [91, 10, 40, 20],
        "collect/lateness_max_ms": [92, 50, 30, 20],
        "collect/deadline_misses": [93, 1, 0, 4],
        "run/time_ratio": [3.0, 2.0, 1.5, 1.25],
    } | changes


def test_lateness_leaves_the_warm_up_out():
    values = {row.name: (row.value, row.unit, row.threads) for row in lateness(histories())}
    assert values == {
        "control-step lateness, p50": (2, "ms", 1),
        "control-step lateness, p99": (20, "ms", 1),
        "control-step lateness, max": (50, "ms", 1),
        "missed deadlines": (5, "steps", 1),
    }


def test_a_run_cannot_be_shorter_than_its_collection():
    row = run_and_collection(histories())
    assert (row.value, row.ratio_to_ceiling) == (1.25, 0.8)


def test_start_up_is_what_comes_before_the_announcement():
    begun = time.perf_counter()
    observed = observe(python(f"print('{ANNOUNCEMENT}', flush=True); sum(range(10**7))"))
    assert 0 < observed.start_up_seconds < time.perf_counter() - begun


def test_peak_memory_is_in_bytes():
    # An interpreter alone takes 8 MiB or more; counted in KiB, even a process of 8 GiB would stay below the bound.
    assert observe(python(f"print('{ANNOUNCEMENT}')")).peak_memory > 2**23


def test_a_run_whose_start_alone_matters_is_ended_there():
    assert observe(python(ENDS_WHEN_TOLD), until_announcement=True).start_up_seconds > 0


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (f"print('{ANNOUNCEMENT}'); raise SystemExit('no room')", r"(?s)ended with status 1:.*no room"),
        ("print('something else')", r"(?s)ended with status 0:.*something else"),
    ],
)
def test_a_run_that_went_wrong_is_told_with_its_output(script, sentence):
    with pytest.raises(RuntimeError, match=sentence):
        observe(python(script))


def test_the_task_announces_its_first_control_step_alone(tmp_path, capsys):
    overrides = [each for each in command(tmp_path, "starts", 2, 0.5)[2:] if not each.startswith("hydra.")]
    cfg = composed(*overrides)
    assert validate(cfg).pace.factor == 0.5
    task = build(cfg.env)
    assert isinstance(task, AnnouncingHalfCheetah)
    task.reset(np.random.default_rng(0))
    assert capsys.readouterr().out == ""
    for _ in range(3):
        task.step(np.zeros(6, np.float32))
    assert capsys.readouterr().out == f"{ANNOUNCEMENT}\n"
    task.close()
