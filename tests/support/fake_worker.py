"""A whole worker process whose trainer is the fake child: `fake_worker.py SETTINGS_JSON [child options]`."""

import json
import sys
from pathlib import Path

from api.domain.settings import Settings
from worker.app import configure_logs, run
from worker.fleet import make_slot
from worker.tasks import WorkerSlot

if __name__ == "__main__":
    configure_logs()
    child = (sys.executable, "-P", str(Path(__file__).with_name("fake_child.py")), *sys.argv[2:])
    settings = Settings(**json.loads(sys.argv[1]))
    sys.exit(run(WorkerSlot.open(settings, make_slot(("train.cpu",), 0), trainer_command=child)))
