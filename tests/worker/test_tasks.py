"""What a slot is made of follows from its settings."""

from pathlib import Path

import pytest

from api.domain.settings import Settings, allow_simulation
from worker.fleet import SlotSpec
from worker.tasks import WorkerSlot

SPEC = SlotSpec(("train.cpu",), 0, "testhost")


@pytest.mark.parametrize("simulate", [False, True])
def test_the_program_of_a_slot(tmp_path: Path, simulate: bool) -> None:
    allow_simulation(tmp_path)
    slot = WorkerSlot.open(Settings(data_dir=tmp_path, simulate=simulate), SPEC)
    assert slot.trainer_command[-1] == ("worker.simulator" if simulate else "worker.trainer")
    slot.close()


def test_a_command_of_its_own_counts_more(tmp_path: Path) -> None:
    slot = WorkerSlot.open(Settings(data_dir=tmp_path), SPEC, trainer_command=("true",))
    assert slot.trainer_command == ("true",)
    slot.close()
