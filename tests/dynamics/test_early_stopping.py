from __future__ import annotations

import pytest
import torch

from mbrl_async.dynamics.early_stopping import EarlyStopping
from mbrl_async.types import NonFiniteError


def stops_after(weight: float, losses: list[float]) -> int | None:
    """The epoch (from 1) after which a single member stops."""
    stopping = EarlyStopping(members=1, weight=weight)
    for epoch, loss in enumerate(losses, start=1):
        stopping.update(torch.tensor([loss]))
        if not stopping.active[0]:
            return epoch
    return None


@pytest.mark.parametrize(
    ("weight", "losses", "epoch"),
    [
        # average: 1.5 -> 1.25 (before it 2), then 0.5 * 1.25 + 0.5 * 1.2 = 1.225, then 1.2625: up.
        (0.5, [1.0, 1.2, 1.3], 3),
        # average 1.25, then 1.375: up.
        (0.5, [1.0, 1.5], 2),
        # average 1.45, then 1.405, 1.3645: it starts half as high again and falls for long, though the loss does not.
        (0.9, [1.0, 1.0, 1.0], None),
        # weight 0: the average is the loss itself. An equal loss is no rise.
        (0.0, [1.0, 0.5, 0.5, 0.51], 4),
        # No first loss can stop a member, since 2 L > 1.5 L.
        (0.99, [1e6], None),
        # negative losses: average -2/1.5 -> -1.6667 (before it -1), then -1.5833: up.
        (0.5, [-2.0, -1.5], 2),
        # average -1.6667, then -1.8333: down.
        (0.5, [-2.0, -2.0], None),
        # zero: average 0 (before it 0), which is no rise; then 0.5: up.
        (0.5, [0.0, 1.0], 2),
    ],
)
def test_stops_where_the_hand_computed_average_rises(weight: float, losses: list[float], epoch: int | None) -> None:
    assert stops_after(weight, losses) == epoch


def test_members_are_judged_alone_and_a_stopped_one_stays_stopped() -> None:
    stopping = EarlyStopping(members=3, weight=0.5)
    for losses in ([1.0, 1.0, 1.0], [1.5, 0.5, 1.2], [0.0, 0.4, 1.3]):
        stopping.update(torch.tensor(losses))
    assert stopping.active.tolist() == [False, True, False]


def test_new_data_restarts_all_members_from_their_next_losses() -> None:
    stopping = EarlyStopping(members=2, weight=0.5)
    for losses in ([1.0, 1.0], [2.0, 0.9]):
        stopping.update(torch.tensor(losses))
    assert stopping.active.tolist() == [False, True]
    stopping.restart()
    assert stopping.active.all()
    stopping.update(torch.tensor([50.0, 50.0]))  # far above the old averages, yet a first epoch
    assert stopping.active.all()


def test_a_restored_state_judges_like_the_original() -> None:
    original, restored = EarlyStopping(members=1, weight=0.5), EarlyStopping(members=1, weight=0.5)
    original.update(torch.tensor([1.0]))
    restored.load_state_dict(original.state_dict())
    for stopping in (original, restored):
        stopping.update(torch.tensor([1.24]))  # average 1.25 -> 1.245
        assert stopping.active.tolist() == [True]
        stopping.update(torch.tensor([1.26]))  # -> 1.2525
        assert stopping.active.tolist() == [False]


def test_active_is_no_handle_on_the_state() -> None:
    stopping = EarlyStopping(members=1, weight=0.5)
    stopping.active.fill_(False)
    assert stopping.active.tolist() == [True]


@pytest.mark.parametrize("losses", [torch.zeros(3), torch.zeros(2, 1), torch.tensor(0.0)])
def test_refuses_other_than_one_loss_a_member(losses: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"validation_losses has the shape .* give one loss a member"):
        EarlyStopping(members=2, weight=0.5).update(losses)


def test_refuses_a_loss_that_is_not_finite() -> None:
    with pytest.raises(NonFiniteError, match="validation loss is not finite"):
        EarlyStopping(members=1, weight=0.5).update(torch.tensor([torch.nan]))
