"""How old the inputs were that workers used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from mbrl_async.types import Metrics


class Staleness:
    """Remembers when each version of each channel was published."""

    def __init__(self) -> None:
        self._published: defaultdict[str, list[float]] = defaultdict(list)  # channel -> time of version 1, 2, ...

    def publish(self, channel: str, time: float) -> None:
        """The next version of `channel` came out at `time`, in seconds on the run's clock."""
        self._published[channel].append(time)

    def metrics(self, pulled: Mapping[str, int], finish: float, suffix: str = "") -> Metrics:
        """Of a step that used the versions `pulled` and ended at `finish`; `suffix`: of the metrics' names.

        For each channel that had something: `staleness/<channel>_versions`, how many newer versions were out when the
        step ended, and `staleness/<channel>_seconds`, how long the used one had been out by then.
        """
        metrics: Metrics = {}
        for channel, version in pulled.items():
            times = self._published[channel]
            if 0 < version <= len(times):
                metrics[f"staleness/{channel}_versions{suffix}"] = float(len(times) - version)
                metrics[f"staleness/{channel}_seconds{suffix}"] = finish - times[version - 1]
        return metrics
