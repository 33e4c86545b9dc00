"""Client and command line need no more than the extra `client`: nothing of the service behind them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

from tests.support.shared import ROOT

WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is not installed here")

BLOCKED = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Missing())
import api.client, api.client.follow
from api.cli.main import app
for command in ([], ["run"], ["check"], ["jobs", "submit"], ["datasets", "push"]):
    try:
        app([*command, "--help"])
    except SystemExit as ended:
        assert ended.code == 0, command
"""


def names(requirements: list[str]) -> set[str]:
    """Return the distributions of a list of requirements."""
    cut = [text.replace("[", "<").replace(">", "<").replace("=", "<").split("<")[0] for text in requirements]
    return {name.strip().lower().replace("_", "-") for name in cut}


def test_nothing_beyond_the_extra_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = names(project["dependencies"]) | names(extras["client"])
    # What the service gets by its web framework.
    assert names(extras["client"]) <= names(extras["api"]) | {"anyio"}
    others = (
        names([text for key in ("api", "worker", "postgres") for text in extras[key]])
        - needed
        - {"trainshed"}
    )
    blocked = [
        module
        for module, owners in packages_distributions().items()
        if others & {owner.lower().replace("_", "-") for owner in owners}
    ]
    assert {"fastapi", "celery", "sqlalchemy", "redis", "torch", "structlog"} <= set(blocked)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, ",".join(blocked)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
