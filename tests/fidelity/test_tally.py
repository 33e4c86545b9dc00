"""The judge of the fidelity suite: what fails a session and what does not."""

from __future__ import annotations

from tests.fidelity.harness import recipe_values, relative_error, uniform
from tests.fidelity.tally import Tally, judge

EXPECTED = {"passed": 2, "skipped": 1}


def tally(**outcomes: str) -> Tally:
    """Return a tally of cases named kind_name, each with its outcomes separated by commas."""
    return Tally(outcomes={(key[0], key): set(seen.split(",")) for key, seen in outcomes.items()})


def test_as_many_as_expected_is_enough() -> None:
    assert judge(tally(a1="passed", a2="passed", b1="skipped"), {"a"}, EXPECTED) == []


def test_fewer_passes_and_more_skips_fail() -> None:
    found = judge(tally(a1="passed", a2="skipped", b1="skipped"), {"a"}, EXPECTED)
    assert found == ["passed fell from 2 to 1", "skipped rose from 1 to 2"]


def test_a_case_passes_only_if_none_of_its_tests_fails() -> None:
    mixed = tally(a1="passed,failed", a2="passed,skipped")
    assert mixed.passed() == {("a", "a2")}
    assert mixed.skipped() == set()


def test_a_kind_with_code_must_have_a_passing_case() -> None:
    found = judge(tally(a1="passed", b1="skipped"), {"a", "b"}, None)
    assert found == ["kind b: has code but no passing case"]


def test_another_folder_is_judged_by_its_own_cases() -> None:
    assert judge(tally(a1="passed"), {"a"}, None) == []


def test_the_stream_and_the_recipe_have_their_known_answers() -> None:
    assert uniform("model.0.conv.weight", 2).tolist() == [0.1899396777153015, 0.40673017501831055]
    values = recipe_values("model.0.conv.weight", (16, 3, 6, 6))
    assert values is not None
    assert values.reshape(-1)[:2].tolist() == [-0.1343594789505005, -0.04041692242026329]
    assert recipe_values("model.24.anchors", (3, 3, 2)) is None


def test_errors_are_relative_and_shapes_matter() -> None:
    assert relative_error([1.0, 2.0], [1.0, 2.0]) == 0
    assert relative_error([3.0], [1.0]) == 1
    assert relative_error([1.0], [[1.0]]) == float("inf")
    assert relative_error([float("nan")], [1.0]) == float("inf")
