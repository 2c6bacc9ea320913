"""The ceilings are honest: they do the arithmetic of what they are compared with, no more and no less."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.dynamics import make_learner, products_of_an_epoch
from benchmarks.paper_ensemble import ACTION_SIZE, MEMBERS, OBSERVATION_SIZE, make_ensemble, prediction_products


def operations(action):
    with FlopCounterMode(display=False) as counter:
        action()
    return counter.get_total_flops()


def test_a_prediction_multiplies_as_much_as_its_ceiling():
    ensemble = make_ensemble(torch.Generator().manual_seed(0))
    observations, actions = torch.zeros(MEMBERS, 10, OBSERVATION_SIZE), torch.zeros(MEMBERS, 10, ACTION_SIZE)
    generator = torch.Generator()
    assert operations(lambda: ensemble.predict(observations, actions, generator)) == operations(prediction_products(10))


def test_an_epoch_multiplies_as_much_as_its_ceiling():
    learner = make_learner()
    assert operations(lambda: learner.epoch(MEMBERS)) == operations(products_of_an_epoch())
