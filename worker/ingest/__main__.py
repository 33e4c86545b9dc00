"""The child program: `python -m worker.ingest TASK_DIR`, under limits, gone when its parent is.

It turns exceptions into exit codes and knows nothing of datasets.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import threading
import traceback
from pathlib import Path

EXIT_DONE, EXIT_DATA, EXIT_USAGE, EXIT_INTERNAL, EXIT_MEMORY, EXIT_DISK = 0, 65, 64, 70, 71, 74


def watch_lifeline() -> None:
    """End the process as soon as the pipe on standard input ends, which means that the parent is gone."""
    if not stat.S_ISFIFO(os.fstat(0).st_mode):
        return

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(EXIT_INTERNAL)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def main(arguments: list[str]) -> int:
    """Run one ingest; return 0 for a ready dataset, 65 for an invalid one, else the kind of failure."""
    if len(arguments) != 1:
        print("usage: python -m worker.ingest TASK_DIR", file=sys.stderr)
        return EXIT_USAGE
    watch_lifeline()
    import cv2

    from worker.ingest.limits import Limits, enforce
    from worker.ingest.run import ingest

    enforce(Limits())
    cv2.setNumThreads(1)  # two pictures at once are faster than two threads for one
    try:
        result = ingest(Path(arguments[0]).resolve())
    except MemoryError:
        print("out of memory", file=sys.stderr)
        return EXIT_MEMORY
    except OSError as error:
        traceback.print_exc()
        return EXIT_DISK if error.errno in (errno.ENOSPC, errno.EDQUOT) else EXIT_INTERNAL
    except Exception:  # noqa: BLE001 (top of a process)
        traceback.print_exc()
        return EXIT_INTERNAL
    return EXIT_DONE if result["status"] == "ready" else EXIT_DATA


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
