"""The pipelines' script, run as they run it against a live service whose trainers pretend."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest
import typer
import yaml
from typer.testing import CliRunner

from api.cli.gates import METRICS, OPERATORS
from api.cli.main import app
from api.cli.recipe import KEYS
from api.cli.reports import FILES, RESULTS
from tests.chaos.sim_stack import SimStack
from tests.support.members import until
from tests.support.shapes import TINY_MODEL, write_shapes
from tests.support.shared import ROOT

SCRIPT = ROOT / "examples" / "ci" / "ci.sh"
QUICK: dict[str, Any] = {"batches": 2, "batch_s": 0.01}
HELD: dict[str, Any] = QUICK | {"hold": (1, 1)}


@dataclass
class Pipeline:
    """A checkout with a recipe, and the service that its pipeline asks."""

    stack: SimStack
    folder: Path

    def recipe(self, name: str = "job.yaml", **more: Any) -> str:
        """Write a recipe; return its name."""
        values = {"dataset": "shapes", "architecture": "tiny.yaml", "config": {"epochs": 3}, **more}
        (self.folder / name).write_text(yaml.safe_dump(values))
        return name

    def out(self, commit: str) -> Path:
        return self.folder / f"out-{commit}"

    def environment(self, commit: str) -> dict[str, str]:
        bare = {name: value for name, value in os.environ.items() if not name.startswith("TRAINSHED_")}
        return bare | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TRAINSHED_URL": self.stack.url(),
            "TRAINSHED_TOKEN": self.stack.token,
            "TRAINSHED_OUT": str(self.out(commit)),
            "GITHUB_SHA": commit,
            "GITHUB_STEP_SUMMARY": str(self.folder / f"step-{commit}.md"),
        }

    def start(self, *arguments: str, commit: str) -> subprocess.Popen[str]:
        """Run the script as a step of a pipeline does."""
        return subprocess.Popen(
            ["sh", str(SCRIPT), *arguments],
            cwd=self.folder,
            env=self.environment(commit),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, commit: str, expected: int) -> dict[str, Any]:
        """Run the script to its end and return its summary."""
        return self.ended(self.start(*arguments, commit=commit), commit=commit, expected=expected)

    def ended(self, step: subprocess.Popen[str], *, commit: str, expected: int) -> dict[str, Any]:
        """Wait for the script's end and return its summary."""
        printed, _ = step.communicate(timeout=60)
        assert step.returncode == expected, printed
        summary: dict[str, Any] = json.loads((self.out(commit) / "summary.json").read_text())
        assert summary["exit_code"] == expected, summary
        return summary | {"printed": printed}

    def running_job(self) -> str:
        """Wait until a job has come as far as the hold, and return its id."""
        until(lambda: [job for job, (status, _) in self.stack.states().items() if status == "running"], "run")
        (job,) = [job for job, (status, _) in self.stack.states().items() if status == "running"]
        self.stack.await_place(job, 1, 0)
        return job


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    folder = tmp_path_factory.mktemp("ci")
    checkout = folder / "checkout"
    checkout.mkdir()
    write_shapes(checkout / "shapes", num_train=2, num_val=1)
    (checkout / "tiny.yaml").write_text(TINY_MODEL)
    with SimStack(folder / "data", workers=1, ingest=True) as stack:
        stack.set_pace(**QUICK)
        yield Pipeline(stack, checkout)


def test_pass_then_the_same_commit_again_then_a_requirement_missed(pipeline: Pipeline) -> None:
    recipe = pipeline.recipe(require=["map50>=0.1", "val_box < 0.2"], name="cells", tags=["main"])
    first = pipeline.run(recipe, commit="c1", expected=0)
    assert [gate["passed"] for gate in first["gates"]] == [True, True]
    assert "epoch   3/3  train box" in first["printed"] and not first["reused"]
    assert_reports(pipeline.out("c1"), first)
    assert "# Training: passed" in (pipeline.folder / "step-c1.md").read_text()
    # What is required is no part of what is trained: no second job for it.
    again = pipeline.run(recipe, "--require", "map50>=0.9", commit="c1", expected=3)
    assert again["job"]["id"] == first["job"]["id"] and again["reused"]
    assert "MISSED  map50 >= 0.9: map50 is 0.2" in again["printed"]
    case = Xml.parse(pipeline.out("c1") / "junit.xml").find(".//testcase[@name='map50 >= 0.9']/failure")
    assert case is not None
    other = pipeline.run(recipe, "--no-worse-than", "main:map50-0.05", commit="c2", expected=0)
    assert other["job"]["id"] != first["job"]["id"]
    assert other["fingerprint"] == first["fingerprint"] and other["dataset"] == first["dataset"]
    assert first["job"]["id"] in other["gates"][-1]["note"]
    # By its content alone, whatever the commit.
    reused = pipeline.run(recipe, "--reuse", commit="c3", expected=0)
    assert reused["reused"] and reused["job"]["id"] == other["job"]["id"]
    assert reused["fingerprint"] == first["fingerprint"] and len(first["fingerprint"]) == 64


def assert_reports(out: Path, summary: dict[str, Any]) -> None:
    assert {item["name"] for item in summary["artifacts"]} >= {"best.pt", "last.pt"}
    for item in summary["artifacts"]:
        assert hashlib.sha256((out / item["path"]).read_bytes()).hexdigest() == item["sha256"]
    suite = Xml.parse(out / "junit.xml").find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "0", "0")
    report = (out / "report.md").read_text()
    for picture in re.findall(r"!\[\w+\]\((.+)\)", report):
        assert Xml.parse(out / picture).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert "| passed | map50 &gt;= 0.1" in report or "| passed | map50 >= 0.1 |" in report
    assert len(summary["epochs"]) == 3 and summary["figures"].keys() >= {"map50", "val_box", "fitness"}


def test_a_failed_job_is_1_and_the_next_try_trains_again(pipeline: Pipeline) -> None:
    recipe = pipeline.recipe(require=["map50>=0.1"])
    pipeline.stack.set_pace(**QUICK, faults=[{"how": "nan", "epoch": 1}])
    failed = pipeline.run(recipe, commit="f1", expected=1)
    assert failed["message"].startswith("NON_FINITE") and failed["gates"][0]["passed"] is None
    assert failed["message"] in failed["printed"]
    pipeline.stack.set_pace(**QUICK)
    after = pipeline.run(recipe, commit="f1", expected=0)
    assert after["job"]["id"] != failed["job"]["id"] and not after["reused"]


def test_a_timeout_is_5_and_the_job_goes_on(pipeline: Pipeline) -> None:
    pipeline.stack.set_pace(**HELD)
    recipe = pipeline.recipe()
    early = pipeline.run(recipe, "--timeout", "4", commit="t1", expected=5)
    job = early["job"]["id"]
    assert early["job"]["status"] in ("queued", "running") and early["gates"] == []
    assert pipeline.stack.state(job)[0] in ("queued", "running")
    pipeline.stack.set_pace(**QUICK)
    late = pipeline.run(recipe, commit="t1", expected=0)
    assert late["job"]["id"] == job


def test_the_service_and_its_broker_may_restart_in_mid_wait(pipeline: Pipeline) -> None:
    stack = pipeline.stack
    stack.set_pace(**HELD)
    step = pipeline.start(pipeline.recipe(), commit="r1")
    job = pipeline.running_job()
    stack.members["api-0"].kill()
    stack.valkey.kill()
    stack.valkey.start()
    stack.restart("api-0")
    stack.set_pace(**QUICK)
    summary = pipeline.ended(step, commit="r1", expected=0)
    assert summary["job"]["id"] == job
    assert [row["epoch"] for row in summary["epochs"]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "code", "status"), [((), 130, "running"), (("--cancel-on-interrupt",), 4, "cancelled")]
)
def test_an_interrupted_wait_cancels_only_if_asked(
    pipeline: Pipeline, options: Sequence[str], code: int, status: str
) -> None:
    pipeline.stack.set_pace(**HELD)
    commit = f"i{code}"
    step = pipeline.start(pipeline.recipe(), *options, commit=commit)
    job = pipeline.running_job()
    step.send_signal(signal.SIGTERM)
    summary = pipeline.ended(step, commit=commit, expected=code)
    assert pipeline.stack.state(job)[0] == status
    assert job in summary["message"]
    pipeline.stack.set_pace(**QUICK)
    pipeline.stack.await_state(job, {"succeeded", "cancelled"})


def invoke(pipeline: Pipeline, *arguments: str, **environment: str) -> tuple[int, dict[str, Any], str]:
    """Run the command in this process; return its exit code, summary and what it said."""
    out = pipeline.out("in-process")
    values = pipeline.environment("in-process") | environment
    found = CliRunner().invoke(app, ["run", *arguments, "--out", str(out)], env=values)
    summary = json.loads((out / "summary.json").read_text()) if (out / "summary.json").exists() else {}
    return found.exit_code, summary, found.output


def test_unreachable_is_6_and_a_wrong_token_7(pipeline: Pipeline) -> None:
    recipe = str(pipeline.folder / pipeline.recipe())
    code, summary, _ = invoke(pipeline, recipe, "--give-up", "0", TRAINSHED_URL="http://127.0.0.1:9")
    assert (code, summary["result"]) == (6, "unreachable")
    code, summary, _ = invoke(pipeline, recipe, TRAINSHED_TOKEN="ts_wrong")
    assert (code, summary["result"]) == (7, "not_allowed")


def test_what_is_wrong_is_told_by_line(pipeline: Pipeline) -> None:
    recipe = pipeline.folder / "wrong.yaml"
    recipe.write_text("dataset: shapes\narchitecture: tiny.yaml\nconfig:\n  hyp:\n    lr0: -1\n")
    code, summary, said = invoke(pipeline, str(recipe))
    assert code == 2 and f"{recipe}:5:10: config.hyp.lr0: " in said and "[-1]" in said
    assert summary["problems"][0]["line"] == 5
    recipe.write_text("dataset: nowhere\narchitecture: tiny.yaml\n")
    code, _, said = invoke(pipeline, str(recipe))
    assert code == 2 and f"{recipe}:1:10: dataset: neither a file" in said
    bad = pipeline.folder / "bad.yaml"
    bad.write_text(TINY_MODEL.replace("SPPF", "SPPX"))
    recipe.write_text("dataset: shapes\narchitecture: bad.yaml\n")
    code, _, said = invoke(pipeline, str(recipe))
    assert code == 2 and re.search(rf"{re.escape(str(bad))}:\d+:\d+: .*SPPX", said)
    code, _, said = invoke(pipeline, str(recipe), "--no-worse-than", "nobody")
    assert code == 2 and "--allow-missing-baseline" in said


def test_a_dataset_goes_by_name_and_by_hash_and_an_invalid_one_is_1(pipeline: Pipeline) -> None:
    recipe = str(pipeline.folder / pipeline.recipe())
    code, first, said = invoke(pipeline, recipe)
    assert code == 0, said
    for wanted in ("shapes", first["dataset"]["manifest_hash"], f"sha256:{first['dataset']['sha256']}"):
        beside = pipeline.folder / "elsewhere"
        beside.mkdir(exist_ok=True)
        (beside / "job.yaml").write_text(
            f"dataset: {wanted}\narchitecture: ../tiny.yaml\nconfig: {{epochs: 3}}\n"
        )
        code, summary, said = invoke(pipeline, str(beside / "job.yaml"), "--json")
        assert (code, summary["job"]["id"]) == (0, first["job"]["id"]), said
    (pipeline.folder / "broken").mkdir()
    (pipeline.folder / "broken" / "data.yaml").write_text("names: [a]\n")
    code, summary, said = invoke(pipeline, str(pipeline.folder / pipeline.recipe(dataset="broken")))
    assert (code, summary["result"]) == (1, "failed") and summary["problems"], said


def test_a_check_tells_what_would_be_queued_and_queues_nothing(pipeline: Pipeline) -> None:
    before = len(pipeline.stack.states())
    recipe = pipeline.folder / pipeline.recipe(name="checked", config={"epochs": 7, "batch": 1})
    environment = pipeline.environment("checked")
    found = CliRunner().invoke(app, ["check", str(recipe)], env=environment)
    assert found.exit_code == 0, found.output
    assert "dataset  shapes  ready  train 2  val 1" in found.stdout
    assert "7 epochs of 2 batches and 1 of validation, 14 batches to train in all" in found.stdout
    # A worker that pretends has told how long a batch takes.
    assert "time     0.01 s a batch of 1, 100 images/s  1 batches timed  simulated" in found.stdout
    told = json.loads(CliRunner().invoke(app, ["check", str(recipe), "--json"], env=environment).stdout)
    assert told["time"]["epoch_s"] == pytest.approx(0.02 + 0.01 / 3)
    assert told["time"]["total_s"] == pytest.approx(7 * told["time"]["epoch_s"])
    quick = CliRunner().invoke(app, ["check", str(recipe), "--no-probe", "--json"], env=environment)
    assert json.loads(quick.stdout) == told | {"time": None}
    assert told["config"]["epochs"] == 7 and told["identical"] is None and told["memory"]["maps_bytes"] > 0
    wrong = CliRunner().invoke(app, ["check", str(recipe), "--set", "hyp.lr0=-1"], env=environment)
    assert wrong.exit_code == 2 and "config.hyp.lr0: " in wrong.stderr
    assert len(pipeline.stack.states()) == before


FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
DOCUMENT = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")


def documented_commands() -> list[tuple[list[str], int]]:
    """Return the commands that docs/ci.md tells people to type, and the exit code it tells of them."""
    lines = [line for block in FENCE.findall(DOCUMENT) for line in block.splitlines()]
    found = []
    for line in lines:
        command, _, said = line.partition("  # exits ")
        if command.startswith(("trainshed run", "trainshed check", "sh ci.sh")):
            found.append((shlex.split(command), int(said or 0)))
    return found


def test_the_documented_commands_do_what_is_said(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "examples" / "ci", tmp_path, dirs_exist_ok=True)
    shutil.copytree(pipeline.folder / "shapes", tmp_path / "dataset")
    recipe = tmp_path / "job.yaml"
    # As few as still reach what the example requires.
    recipe.write_text(recipe.read_text().replace("epochs: 50", "epochs: 14"))
    monkeypatch.chdir(tmp_path)
    pipeline.stack.set_pace(batches=1, batch_s=0.001)
    commands = documented_commands()
    assert len(commands) >= 8 and {words[0] for words, _ in commands} == {"trainshed", "sh"}
    environment = pipeline.environment("documented")
    for words, code in commands:
        if words[0] == "trainshed":
            ended = CliRunner().invoke(app, words[1:], env=environment)
            assert ended.exit_code == code, (words, ended.output)
        else:
            step = subprocess.run(
                words, env=environment, capture_output=True, text=True, timeout=60, check=False
            )
            assert step.returncode == code, (words, step.stdout, step.stderr)
    assert (tmp_path / "trainshed-out" / "report.md").is_file() and (tmp_path / "results").is_dir()


def test_the_document_names_all_there_is() -> None:
    codes = re.findall(r"^\| (\d+) \| ", DOCUMENT, re.MULTILINE)
    assert [int(code) for code in codes] == sorted(RESULTS)
    named = set(re.findall(r"`([^`\n]+)`", FENCE.sub("", DOCUMENT)))
    assert set(KEYS) | set(METRICS) | set(FILES) | set(OPERATORS) <= named
    (shown,) = [block for block in FENCE.findall(DOCUMENT) if block.startswith("dataset:")]
    example = (ROOT / "examples" / "ci" / "job.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(shown) == yaml.safe_load(example)


@pytest.mark.parametrize("name", ["github.yml", "gitlab.yml"])
def test_the_workflows_call_the_script_with_options_it_has(name: str) -> None:
    text = (ROOT / "examples" / "ci" / name).read_text(encoding="utf-8")
    assert isinstance(yaml.safe_load(text), dict)
    (line,) = re.findall(r"sh ci\.sh .*", text)
    words = shlex.split(line)[2:]
    command: Any = typer.main.get_command(app)
    known = {option for parameter in command.commands["run"].params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known
    for name in re.findall(r"TRAINSHED_[A-Z]+", text):
        assert name in SCRIPT.read_text(encoding="utf-8")


# A python3 that notes what it is asked; its virtual environment has a `trainshed` that misses a requirement.
STUB = """\
#!/bin/sh
echo "$@" >> "$NOTES"
[ "$2" = venv ] || exit 0
mkdir -p "$3/bin"
cp "$0" "$3/bin/python"
cat > "$3/bin/trainshed" <<'END'
#!/bin/sh
echo "$@" >> "$NOTES"
exit 3
END
chmod +x "$3/bin/trainshed"
"""


def test_the_script_installs_the_client_where_it_is_missing(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    stub = tools / "python3"
    stub.write_text(STUB)
    stub.chmod(0o755)
    notes = tmp_path / "notes"
    environment = {"PATH": f"{tools}:/usr/bin:/bin", "NOTES": str(notes)}
    command = ["sh", str(SCRIPT), "job.yaml", "--name", "two words"]
    refused = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2 and "says what pip shall install" in refused.stderr
    assert not notes.exists()
    environment |= {"TRAINSHED_PACKAGE": "trainshed[api] @ file:///x"}
    for _ in range(2):
        step = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert step.returncode == 3, step.stderr
    told = notes.read_text().splitlines()
    assert told[0] == "-m venv .trainshed-venv" and told[1].endswith("trainshed[api] @ file:///x")
    assert told[2:] == ["run job.yaml --name two words --out trainshed-out"] * 2
