"""What every test stands on."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Take SIGINT as a terminal sends it: a shell that runs us in the background has it ignored, by ours too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
