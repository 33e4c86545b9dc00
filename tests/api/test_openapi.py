"""The kept description of the interface is that of the code: a change of what clients rely on is seen."""

from __future__ import annotations

import difflib

import pytest

from api.openapi import as_text, description
from tests.support.shared import ROOT

KEPT = ROOT / "docs" / "openapi.json"
RENEW = "python -m api.openapi > docs/openapi.json"
MOST_SHOWN = 80


def test_the_kept_description_is_that_of_the_code() -> None:
    kept, made = KEPT.read_text(encoding="utf-8"), as_text(description())
    if kept == made:
        return
    lines = difflib.unified_diff(kept.splitlines(), made.splitlines(), "kept", "made", lineterm="", n=2)
    shown = list(lines)
    more = [f"... and {len(shown) - MOST_SHOWN} lines more"] if len(shown) > MOST_SHOWN else []
    changed = "\n".join(shown[:MOST_SHOWN] + more)
    pytest.fail(f"the interface is another; if that is meant: {RENEW}\n{changed}", pytrace=False)
