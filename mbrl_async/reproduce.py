"""Makes a recorded run anew, and says how far apart the two are: `python -m mbrl_async.reproduce RUN_ID [KEY=VALUE …]`.

The recorded configuration counts, with the new overrides on top. Runs in which workers take turns, or whose clock is
simulated with fixed costs, are expected to repeat bit for bit on the same processor with the same packages; if nothing
was changed and one does not, the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console

from mbrl_async.checkpoint.codec import CheckpointError
from mbrl_async.collectors import is_repeatable
from mbrl_async.config import ConfigError
from mbrl_async.differences import COMPUTES, Difference, config_differences, environment_differences
from mbrl_async.distance import Distance, and_in, distance
from mbrl_async.experiment import Experiment, build_experiment
from mbrl_async.job import Job, WorkerFailedError, run_job
from mbrl_async.recorded import RecordedRun, all_overrides, compose_again, default_uri
from mbrl_async.replay import RECORDED
from mbrl_async.runtime.trace import TRACE_FILE
from mbrl_async.settings import devices_of
from mbrl_async.tracking.run import REPRODUCES_TAG
from mbrl_async.tracking.store import TrackingError, open_store

OUTPUT = "outputs/{now:%Y-%m-%d}/{now:%H-%M-%S}-reproduction-{run_id}"

SCREEN = Console(highlight=False, soft_wrap=True)


def main() -> int:
    """Reproduce the run that the command line names.

    Returns:
        The exit status: 0 reproduced, as far as can be expected; 1 not identical although it should be, or failed;
        2 refused before the start; 130 interrupted.
    """
    arguments = _parse()
    uri = arguments.uri or _given_uri(arguments.overrides) or default_uri()
    try:
        return reproduce(arguments.run_id, arguments.overrides, uri, _output(arguments.run_id))
    except (ConfigError, TrackingError, CheckpointError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    except WorkerFailedError as error:
        print(f"The run failed: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130


def reproduce(run_id: str, overrides: Sequence[str], uri: str, output: Path) -> int:
    """Run it anew, recorded in the same store, and print what differs before and after.

    Returns:
        The exit status: 1 if the runs should be identical and are not.

    Raises:
        ConfigError: there is no such run, or its configuration cannot be used with these overrides.
        WorkerFailedError: a worker raised.
    """
    client = open_store(uri, create=False)
    recorded = RecordedRun(client, run_id, output / RECORDED)
    cfg, choices = compose_again(recorded, overrides)
    cfg.tracking.uri = uri
    experiment = build_experiment(cfg)
    changed = config_differences(recorded, cfg)
    elsewhere = environment_differences(recorded, devices_of(cfg.devices))
    _tell(recorded, [*elsewhere, *changed])
    run_job(Job(cfg, all_overrides(recorded, overrides), choices, output, {REPRODUCES_TAG: run_id}))
    apart = distance(recorded, output)
    computes_alike = not changed and not any(each.name in COMPUTES for each in elsewhere)
    expected = computes_alike and _repeats(experiment) and recorded.has(TRACE_FILE) and is_repeatable(cfg.env)
    for line in _lines(apart, expected):
        SCREEN.print(line)
    return int(expected and not apart.identical)


def _output(run_id: str) -> Path:
    return Path(OUTPUT.format(now=datetime.now(), run_id=Path(run_id).name))


def _tell(recorded: RecordedRun, differences: Sequence[Difference]) -> None:
    SCREEN.print(f"Reproducing run {recorded.run_id}. What differs:")
    for line in map(str, differences) if differences else ("nothing that is known",):
        SCREEN.print(f"  {line}")


def _repeats(experiment: Experiment) -> bool:
    """Whether the same configuration gives the same run, to the last bit."""
    return experiment.backend.repeats or (experiment.schedule.takes_turns and experiment.rule.seconds is None)


def _lines(apart: Distance, expected: bool) -> Iterator[str]:
    """What was found."""
    if apart.identical:
        yield f"identical in all {apart.steps} steps{and_in(apart.parameters)}"
        return
    returns = apart.returns
    yield (
        f"not identical{', although it should be' if expected else ''}: "
        f"{apart.first_difference or 'all steps are, but the stored parameters are not those that they ended with'}"
    )
    yield (
        f"returns: {returns.maximum:.4g} apart at most, {returns.mean:.4g} on average, over {returns.points} points "
        "with as many environment steps in both runs"
    )
    for name, same in apart.parameters.items():
        yield f"{name}: {'bit-identical' if same else 'different'}"


def _given_uri(overrides: Sequence[str]) -> str | None:
    given = [each.removeprefix("tracking.uri=").strip("'\"") for each in overrides if each.startswith("tracking.uri=")]
    return given[-1] if given else None


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mbrl_async.reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_id", metavar="RUN_ID", help="of the recorded run, as MLflow shows it")
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="settings that shall differ, as for main.py")
    parser.add_argument("--uri", help="the store that holds the run, and will hold the new one; like tracking.uri=URI")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
