"""What a backend runs.

Every backend runs every worker in the same loop, each where and when it thinks fit:

    worker = make(clock)
    while the schedule lets it:
        if worker.pull():
            report = worker.step()
            worker.push()
    worker.close()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from mbrl_async.types import Clock, Parameters, State, StepReport


class Worker(Protocol):
    """A worker knows neither when nor where it runs; only `pull` and `push` touch channels."""

    @property
    def pulled(self) -> Mapping[str, int]:
        """Channel -> version that the last `pull` got; for a stream, items taken so far."""

    @property
    def publishes(self) -> str:
        """The channel that `push` writes to."""

    def pull(self) -> bool:
        """Take the newest inputs; False: nothing has changed, and nothing to do until somebody publishes."""

    def step(self) -> StepReport:
        """One trajectory, one epoch or one policy update, on local state alone.

        Raises:
            Interrupted: the run is over; the step does not count.
        """

    def result(self) -> Parameters:
        """What `push` publishes, as named tensors: the trace keeps their digest."""

    def push(self) -> None:
        """Publish the result."""

    def state_dict(self) -> State:
        """Everything that the next step depends on, as a copy; asked for between two steps, or between pull and step.

        What the last `pull` took is in the entry `INPUTS`, which may be left out: then `load_state_dict` leaves a
        worker that takes its inputs again with the next `pull`.
        """

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`: from here on, the worker does exactly what that one would have done."""

    def close(self) -> None:
        """Give back what the worker holds outside Python; nothing follows."""


WorkerMaker = Callable[[Clock], Worker]
"""Called where the worker will run; for `processes`, it has to be such as can be pickled."""
