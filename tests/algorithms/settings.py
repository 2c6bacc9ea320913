"""Settings that tests of algorithms share."""

from __future__ import annotations

from typing import Any


def trust_region_settings(**changes: Any) -> dict[str, Any]:
    """Those of the configuration, but for `changes`."""
    return {
        "step_size": 0.01,
        "conjugate_gradient_iterations": 10,
        "curvature_interval": 1,
        "damping": 1e-5,
        "backtrack_ratio": 0.8,
        "backtracks": 15,
    } | changes
