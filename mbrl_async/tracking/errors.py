"""What went wrong, short enough for a sentence."""

from __future__ import annotations


def reason(error: Exception) -> str:
    """The first line of the error: databases add the statement and all its values below it."""
    return (str(error).splitlines() or [type(error).__name__])[0]
