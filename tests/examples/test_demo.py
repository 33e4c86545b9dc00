"""What the demo says at its end."""

from pathlib import Path

import pytest

from api.client import Job
from examples.demo import report


@pytest.mark.parametrize("names", [("best.pt",), ("best.onnx", "best.onnx.json", "best.pt", "last.pt")])
def test_the_weights_it_names_are_those_of_torch(
    names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    job = Job.model_construct(status="succeeded", best={"epoch": 2, "map50": 0.9, "map50_95": 0.5})
    assert report(job, {name: Path("results") / name for name in names}) == 0.9
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "weights: results/best.pt"
    assert ("the same for other programs: results/best.onnx" in told) == ("best.onnx" in names)
