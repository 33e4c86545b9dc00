"""Ties a program that knows no lifeline to one: `python -m api.stack.tether PROGRAM ARGUMENTS...`.

Runs the program as its child, passes SIGTERM on, and stops it when standard input ends, which means that
whoever started this is gone. Imports nothing heavy: it stays in memory as long as the program runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading

_PR_SET_PDEATHSIG = 1
_GRACE_S = 10.0


def _die_with_parent() -> None:
    # The second net, for the case that this process itself is killed; Linux only.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def main(command: list[str]) -> int:
    """Run the command until it ends and return its exit code."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: process.terminate())

    def wait_for_end() -> None:
        while os.read(0, 4096):
            pass
        process.terminate()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()

    threading.Thread(target=wait_for_end, name="lifeline", daemon=True).start()
    code = process.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
