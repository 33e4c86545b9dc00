"""A whole worker process that simulates: `sim_worker.py SLOT`; settings come from the environment."""

import sys

from api.domain.settings import settings_or_exit
from worker.app import configure_logs, run, watch_lifeline
from worker.child import module_command
from worker.fleet import make_slot
from worker.tasks import WorkerSlot

if __name__ == "__main__":
    configure_logs()
    watch_lifeline()
    settings = settings_or_exit("simulating worker")
    slot = make_slot(("train.cpu",), int(sys.argv[1]))
    sys.exit(run(WorkerSlot.open(settings, slot, trainer_command=module_command("worker.simulator"))))
