"""The ceilings are honest: they do the arithmetic of what they are compared with, no more and no less."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.dynamics import make_learner, products_of_an_epoch
from benchmarks.paper_ensemble import ACTION_SIZE, MEMBERS, OBSERVATION_SIZE, make_ensemble, prediction_products
from benchmarks.policy_step import PolicyStep
from mbrl_async.algorithms.flat import flatten
from mbrl_async.algorithms.task_imagination import imagine_tasks
from mbrl_async.dynamics.precision import DTYPES
from mbrl_async.policies.stack import PolicyStack


def operations(action):
    with FlopCounterMode(display=False) as counter:
        action()
    return counter.get_total_flops()


precisions = pytest.mark.parametrize("precision", DTYPES)


@precisions
def test_a_prediction_multiplies_as_much_as_its_ceiling(precision):
    predictor = make_ensemble(torch.Generator().manual_seed(0), precision).predictor()
    observations, actions = torch.zeros(MEMBERS, 10, OBSERVATION_SIZE), torch.zeros(MEMBERS, 10, ACTION_SIZE)
    generator = torch.Generator()
    assert operations(lambda: predictor.predict(observations, actions, generator)) == operations(
        prediction_products(10)
    )


def test_an_imagined_step_of_all_tasks_multiplies_as_much_as_its_ceiling_besides_the_policies():
    step, tasks, rollouts = PolicyStep(), 20, 4
    stack = PolicyStack(step.policy())
    parameters = torch.zeros(tasks, flatten(list(step.policy().parameters())).numel())
    starts = torch.zeros(tasks, rollouts, OBSERVATION_SIZE)
    generator = torch.Generator().manual_seed(0)

    def imagine():
        imagine_tasks(stack, parameters, step.model, step.task, starts, 1, generator, check_interrupted=lambda: None)

    policies = operations(lambda: stack.distribution(parameters, starts))
    assert operations(imagine) - policies == operations(prediction_products(tasks * rollouts // MEMBERS))


@precisions
def test_an_epoch_multiplies_as_much_as_its_ceiling(precision):
    transitions = 800  # two full batches and half of one: a processor without bf16 takes long
    learner = make_learner(precision, transitions=transitions)
    expected = operations(products_of_an_epoch(precision, transitions))
    assert operations(lambda: learner.epoch(MEMBERS)) == expected
