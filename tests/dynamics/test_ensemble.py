from __future__ import annotations

import pytest
import torch

from mbrl_async.dynamics.normaliser import Normaliser
from mbrl_async.types import Transitions

DRAW = torch.Generator()
"""A deterministic ensemble draws nothing from it."""


def random_rows(batch: int = 7, members: int = 3, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(members, batch, 3, generator=generator), torch.randn(members, batch, 2, generator=generator)


@pytest.fixture
def fitted(make_ensemble, make_buffer, linear_transitions):
    ensemble, buffer = make_ensemble(), make_buffer()
    buffer.append(linear_transitions(200))
    ensemble.fit_normalisation(buffer.train)
    return ensemble


def test_normalisation_is_each_members_own_mean_and_population_deviation() -> None:
    normaliser = Normaliser(members=2, size=1, minimum_std=1e-3, device="cpu")
    rows = torch.tensor([[[1.0], [3.0]], [[1.0], [1.0001]]])
    normaliser.fit(rows)
    assert normaliser.mean.flatten().tolist() == [2.0, pytest.approx(1.00005)]
    assert normaliser.std.flatten().tolist() == [1.0, pytest.approx(1e-3)]  # member 1 saw hardly any change: the floor
    assert normaliser.normalise(rows).flatten().tolist() == pytest.approx([-1.0, 1.0, -0.05, 0.05], rel=1e-2)
    torch.testing.assert_close(normaliser.restore(normaliser.normalise(rows)), rows, rtol=1e-6, atol=0)  # rounding


@pytest.mark.parametrize("constant", [0.0, 0.1, -12345.678])
def test_what_is_constant_in_the_data_stays_constant(constant) -> None:
    """Also where rounding leaves a standard deviation of about 1e-8 of the constant."""
    normaliser = Normaliser(members=1, size=2, minimum_std=1e-3, device="cpu")
    rows = torch.randn(1, 1000, 2, generator=torch.Generator().manual_seed(0))
    rows[..., 0] = constant
    normaliser.fit(rows)
    anything = torch.tensor([[[7.0, 7.0]]])
    assert normaliser.normalise(anything)[0, 0, 0] == 0
    assert normaliser.restore(anything)[0, 0, 0] == pytest.approx(constant, rel=1e-6)
    assert normaliser.normalise(anything)[0, 0, 1] == pytest.approx(7, abs=1)  # of a standard normal


def test_a_constant_observation_does_not_drift_in_imagination(make_ensemble, make_buffer, linear_transitions) -> None:
    """Where it did, an untrained network's answer was fed back two hundred times, divided by the least deviation."""
    ensemble, buffer = make_ensemble(), make_buffer()
    transitions = linear_transitions(200)
    transitions.observations[:, 0] = transitions.next_observations[:, 0] = 0.25
    buffer.append(transitions)
    ensemble.fit_normalisation(buffer.train)
    predictor = ensemble.predictor()
    observations, actions = random_rows()
    observations[..., 0] = 0.25
    for _ in range(200):
        observations = predictor.predict(observations, actions, DRAW)[..., : observations.shape[2]].clone()
    assert torch.equal(observations[..., 0], torch.full_like(observations[..., 0], 0.25))


def test_normalisation_is_the_identity_until_it_is_fitted() -> None:
    normaliser = Normaliser(members=1, size=2, minimum_std=1e-3, device="cpu")
    rows = torch.tensor([[[5.0, -7.0]]])
    assert torch.equal(normaliser.normalise(rows), rows)
    assert torch.equal(normaliser.restore(rows), rows)


def test_prediction_is_observation_plus_restored_output(fitted) -> None:
    observations, actions = random_rows()
    inputs = torch.cat((observations, actions), dim=2)
    inputs = (inputs - fitted.input_normaliser.mean) / fitted.input_normaliser.std
    outputs = fitted.mlp.apply(fitted.mlp.layers(fitted.network), inputs)
    expected = observations + outputs * fitted.target_normaliser.std + fitted.target_normaliser.mean
    # 1e-5: float32 rounding of three sums of numbers of up to 10.
    torch.testing.assert_close(fitted.predictor().predict(observations, actions, DRAW), expected, rtol=1e-5, atol=1e-5)


def test_each_member_predicts_its_own_rows(fitted) -> None:
    observations, actions = random_rows()
    before = fitted.predictor().predict(observations, actions, DRAW)
    observations[1] += 1.0
    changed = (fitted.predictor().predict(observations, actions, DRAW) != before).any(dim=2).any(dim=1)
    assert changed.tolist() == [False, True, False]


def test_members_differ_on_the_same_rows(make_ensemble) -> None:
    observations, actions = (rows[:1].expand(3, -1, -1) for rows in random_rows())
    first, second, third = make_ensemble().predictor().predict(observations, actions, DRAW)
    assert not torch.allclose(first, second)
    assert not torch.allclose(second, third)


def test_predictions_are_clipped(make_ensemble) -> None:
    observations, actions = random_rows()
    predicted = make_ensemble(limit=0.5).predictor().predict(1000 * observations, actions, DRAW)
    assert predicted.abs().max() == 0.5


def test_predictions_stay_within_so_many_deviations_of_each_members_data(make_ensemble, make_buffer) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(300, 3, generator=generator) * torch.tensor([1.0, 30.0, 0.1]) + torch.tensor([5.0, 0.0, -9.0])
    buffer = make_buffer()
    buffer.append(Transitions(rows, torch.zeros(300, 2), rows))
    ensemble = make_ensemble(deviations=2.0, limit=50.0)
    ensemble.fit_normalisation(buffer.train)
    data = buffer.train.inputs[..., :3]
    std, mean = torch.std_mean(data, dim=1, correction=0)  # (M, O)
    far = 1000 * torch.cat((torch.ones(3, 1, 3), -torch.ones(3, 1, 3)), dim=1)
    predicted = ensemble.predictor().predict(far, torch.zeros(3, 2, 2), DRAW)
    torch.testing.assert_close(predicted[:, 0], (mean + 2 * std).clamp(-50, 50))
    torch.testing.assert_close(predicted[:, 1], (mean - 2 * std).clamp(-50, 50))
    assert predicted.abs().max() == 50.0, "the limit holds beside the deviations"


def test_what_was_constant_in_the_data_stays_where_a_rollout_began_whatever_the_deviations(
    make_ensemble, make_buffer
) -> None:
    rows = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    rows[:, 2] = 0.15  # a target, the same in every trajectory so far
    buffer, ensemble = make_buffer(), make_ensemble(deviations=5.0)
    buffer.append(Transitions(rows, torch.zeros(300, 2), rows))
    ensemble.fit_normalisation(buffer.train)
    observations = torch.zeros(3, 2, 3)
    observations[..., 2] = torch.tensor([-0.12, 0.07])
    predicted = ensemble.predictor().predict(observations, torch.zeros(3, 2, 2), DRAW)
    assert torch.equal(predicted[..., 2], observations[..., 2])


def test_signals_are_learned_and_predicted_in_their_own_units(make_ensemble, make_buffer) -> None:
    generator = torch.Generator().manual_seed(0)
    observations = torch.randn(200, 3, generator=generator)
    signals = torch.randn(200, 2, generator=generator) * torch.tensor([50.0, 0.1]) + 7.0
    buffer, ensemble = make_buffer(signals=2), make_ensemble(signals=2)
    buffer.append(Transitions(observations, torch.zeros(200, 2), torch.cat([observations + 1, signals], dim=1)))
    ensemble.fit_normalisation(buffer.train)
    _, targets = ensemble.normalised(buffer.train)
    assert targets.mean(1).abs().max() < 1e-5  # float32 sums of 160 numbers of size 1
    assert torch.allclose(targets[..., 3:].std(1, correction=0), torch.ones(3, 2), atol=1e-4)
    restored = ensemble.target_normaliser.restore(targets)
    torch.testing.assert_close(restored[..., 3:], buffer.train.outcomes[..., 3:], rtol=1e-4, atol=1e-4)  # float32
    rows, actions = random_rows()
    outcomes = ensemble.predictor().predict(rows, torch.zeros_like(actions), DRAW)
    assert outcomes.shape == (3, 7, 5)
    # An untrained network answers within a few deviations of the mean: 50 for the first signal, 0.1 for the second.
    assert (outcomes[..., 4] - 7.0).abs().max() < 1.0 < (outcomes[..., 3] - 7.0).abs().max()


def test_prediction_leaves_its_arguments_alone_and_records_no_gradient(fitted) -> None:
    observations, actions = random_rows()
    kept = observations.clone(), actions.clone()
    predicted = fitted.predictor().predict(observations, actions.requires_grad_(), DRAW)
    assert not predicted.requires_grad
    assert torch.equal(observations, kept[0])
    assert torch.equal(actions, kept[1])


def test_state_dict_carries_all_that_predicts(fitted, make_ensemble) -> None:
    copy = make_ensemble(seed=9)
    state = {name: tensor.clone() for name, tensor in fitted.state_dict().items()}
    copy.load_state_dict(state)
    rows = random_rows()
    assert torch.equal(copy.predictor().predict(*rows, DRAW), fitted.predictor().predict(*rows, DRAW))
    fitted.network.zero_()
    assert copy.network.any()  # no memory is shared


def test_nothing_in_the_ensemble_asks_for_a_gradient(make_ensemble) -> None:
    ensemble = make_ensemble()
    assert ensemble.members == 3
    assert not list(ensemble.parameters())
    assert not any(buffer.requires_grad for buffer in ensemble.buffers())


@pytest.mark.parametrize(
    ("observations", "actions"),
    [
        ((2, 7, 3), (2, 7, 2)),  # members
        ((3, 7, 4), (3, 7, 2)),  # observation size
        ((3, 7, 3), (3, 7, 3)),  # action size
        ((3, 7, 3), (3, 6, 2)),  # rows
        ((7, 3), (7, 2)),  # no members at all
        ((3,), (2,)),  # one row
    ],
)
def test_refuses_other_shapes(make_ensemble, observations: tuple[int, ...], actions: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"observations and actions have the shapes .* give each member as many rows"):
        make_ensemble().predictor().predict(torch.zeros(observations), torch.zeros(actions), DRAW)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_predictor_answers_alike_however_many_rows_it_was_asked_before(make_ensemble, precision) -> None:
    ensemble = make_ensemble(precision=precision)
    predictor = ensemble.predictor()
    rows = random_rows()
    first = predictor.predict(*rows, DRAW)
    kept = first.clone()
    predictor.predict(*random_rows(batch=4), DRAW)
    assert torch.equal(predictor.predict(*rows, DRAW), kept)
    assert torch.equal(first, kept), "an answer changed when the next was asked for"
    assert first.dtype == torch.float32
