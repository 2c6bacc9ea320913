import pytest

from mbrl_async.runtime.trace import Counters, StepRecord
from mbrl_async.tracking.progress import WINDOW, Limits, Progress, RemainingTime


@pytest.mark.parametrize(
    ("limits", "share"),
    [
        (Limits(trajectories=40, env_steps=None, seconds=None), 0.25),
        (Limits(trajectories=None, env_steps=4000, seconds=None), 0.5),
        (Limits(trajectories=40, env_steps=4000, seconds=125.0), 0.8),  # the first that is reached ends the run
        (Limits(trajectories=5, env_steps=None, seconds=None), 1.0),
        (Limits(trajectories=None, env_steps=None, seconds=None), 0.0),
    ],
)
def test_the_nearest_limit_says_how_much_is_done(limits: Limits, share: float):
    counters = Counters(trajectories=10, env_steps=2000, seconds=100.0)
    assert limits.share_done(counters) == pytest.approx(share)  # quotients in floating point


def test_the_remaining_time_counts_down_between_steps():
    now = [100.0]
    remaining = RemainingTime(lambda: now[0])
    assert remaining.seconds() is None
    now[0] = 110.0
    remaining.update(0.25)
    assert remaining.seconds() == 30.0
    now[0] = 114.0
    remaining.update(0.25)
    assert remaining.seconds() == 26.0
    now[0] = 200.0
    assert remaining.seconds() == 0.0


def test_what_was_done_before_a_resumption_says_nothing_about_the_speed_after_it():
    now = [100.0]
    remaining = RemainingTime(lambda: now[0], share=0.5)
    remaining.update(0.5)
    assert remaining.seconds() is None
    now[0] = 110.0
    remaining.update(0.6)
    assert remaining.seconds() == pytest.approx(40.0)


def test_progress_keeps_the_newest_numbers_and_the_last_returns():
    progress = Progress()
    assert progress.snapshot().mean_return is None
    assert progress.snapshot().time_ratio is None
    for index in range(1, 13):
        counters = Counters(index, 200 * index, 11.0 * index, 10.0 * index)
        metrics = {"collect/return": float(index), "run/time_ratio": 1.0 + index / 100}
        progress.on_step(StepRecord("collect", index, 0, 1, {}), metrics, counters)
    progress.on_step(StepRecord("learn_model", 1, 0, 1, {"trajectories": 12}), {"learn_model/epochs": 30.0}, counters)
    snapshot = progress.snapshot()
    assert snapshot.steps == {"collect": 12, "learn_model": 1}
    assert snapshot.inputs == {"collect": (), "learn_model": ("trajectories",)}
    assert snapshot.returns == tuple(range(3, 13))
    assert len(snapshot.returns) == WINDOW
    assert snapshot.mean_return == 7.5
    assert snapshot.time_ratio == 1.12, "of the newest trajectory: a learner's step within one must not alter it"
    assert snapshot.per_trajectory("learn_model/epochs") == 2.5
    assert snapshot.per_trajectory("improve_policy/updates") is None
