"""Workers and their parts are made of what their constructors ask for by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mbrl_async.config import ConfigError
from mbrl_async.supplies import Supplies, torch_generator


class Part:
    def __init__(self, *, size: int, generator: torch.Generator) -> None:
        self.size, self.generator = size, generator


class Whole:
    def __init__(
        self, *, part: Part, other: Part, speed: float, numbers: np.random.Generator, noise: torch.Generator
    ) -> None:
        self.part, self.other, self.speed, self.numbers, self.noise = part, other, speed, numbers, noise


def node(target: type, **configured: object) -> dict[str, object]:
    return {"_target_": f"{__name__}.{target.__name__}", **configured}


def supplies(worker: str = "collect", seed: int = 0, **more) -> Supplies:
    table = {
        "part": lambda made: made.make("part", node(Part)),
        "other": lambda made: made["part"],
        "size": lambda _: 3,
        **more,
    }
    return Supplies(worker, "cpu", table, seed)


def draws(whole: Whole) -> tuple[float, float, float]:
    return (
        whole.numbers.random(),
        float(torch.rand(1, generator=whole.noise)),
        float(torch.rand(1, generator=whole.part.generator)),
    )


def test_parts_are_made_once_and_shared_within_a_worker():
    whole = supplies().make("whole", node(Whole, speed=0.5))
    assert whole.part is whole.other
    assert (whole.part.size, whole.speed) == (3, 0.5)


def test_what_the_configuration_says_counts_and_what_is_given_counts_more():
    made = supplies()
    assert made.make("part", node(Part, size=7)).size == 7
    assert made.make("part", node(Part), size=8).size == 8


def test_every_generator_is_its_own_and_depends_on_nothing_but_seed_worker_and_name():
    first = draws(supplies().make("whole", node(Whole, speed=1.0)))
    assert len(set(first)) == 3
    assert first == draws(supplies().make("whole", node(Whole, speed=1.0)))
    for other in (supplies(worker="learn_model"), supplies(seed=1)):
        assert not set(first) & set(draws(other.make("whole", node(Whole, speed=1.0))))
    made = supplies()
    made["part"]
    assert draws(made.make("whole", node(Whole, speed=1.0))) == first, "the order of making changes nothing"


def test_an_unknown_need_is_refused_with_its_place_and_what_there_is():
    with pytest.raises(ConfigError, match=r"whole\.speed has no value, and nobody supplies it: there are other, part"):
        supplies().make("whole", node(Whole))
    near = supplies(speeds=lambda _: 1.0)
    with pytest.raises(ConfigError, match="did you mean speeds"):
        near.make("whole", node(Whole))


def test_what_needs_itself_is_refused_with_the_circle():
    circle = {"size": lambda made: made["part"].size}
    with pytest.raises(ConfigError, match="part, which needs size, which needs part: give one of them a value"):
        supplies(**circle).make("whole", node(Whole, speed=1.0))


def test_a_named_generator_is_the_same_wherever_it_is_made():
    one, two = (torch.rand(4, generator=torch_generator(5, "initial policy", "cpu")) for _ in range(2))
    assert torch.equal(one, two)
