"""What is published of a policy that adapts to tasks: its own parameters, and those that each task made of them.

The own ones keep their names, so that whoever wants the policy itself finds it; the adapted ones have a leading
dimension J, an entry a task, under a prefixed name.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mbrl_async.types import Parameters

PREFIX = "adapted."


def with_adapted(own: Parameters, adapted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One mapping of a policy's own parameters and of the adapted ones (J, ...)."""
    return dict(own) | {PREFIX + name: tensor for name, tensor in adapted.items()}


def own_parameters(published: Parameters) -> dict[str, Tensor]:
    """Those of the policy itself, before any adaptation: all that there are of a policy that does not adapt."""
    return {name: tensor for name, tensor in published.items() if not name.startswith(PREFIX)}


def adapted_policies(published: Parameters) -> list[dict[str, Tensor]]:
    """The parameters of each of the J adapted policies."""
    adapted = {name.removeprefix(PREFIX): tensor for name, tensor in published.items() if name.startswith(PREFIX)}
    return [dict(zip(adapted, policy, strict=True)) for policy in zip(*adapted.values(), strict=True)]
