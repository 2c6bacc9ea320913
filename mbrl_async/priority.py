"""How the operating system ranks the threads of this program among each other."""

from __future__ import annotations

import os
import sys
import threading

WIDEST = 19
"""From the usual rank to the lowest."""


def lower_priority(by: int = WIDEST) -> None:
    """Rank the calling thread lower, for good; by default it runs only when no other wants the core."""
    if sys.platform == "linux":  # elsewhere a process has one priority for all its threads
        own = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, own, os.getpriority(os.PRIO_PROCESS, own) + by)
