"""No parser of what strangers send lets anything out but its own refusals, whatever is done to its seeds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

# What pickletools says of a text in a pickle goes to a log that nobody reads; it is no finding.
pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")


@st.composite
def spoiled(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """Give a seed of which a few stretches were cut, doubled or written over."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        end = draw(st.integers(at, min(len(data), at + 24)))
        data = data[:at] + draw(st.one_of(st.binary(max_size=8), st.just(data[at:end] * 2))) + data[end:]
    return data


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_seeds_are_read(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


@pytest.mark.parametrize("name", sorted(TARGETS))
@given(data=st.data())
@settings(max_examples=150, derandomize=True)
def test_a_spoiled_input_is_refused_or_read(name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    target.run(data.draw(spoiled(target.seeds)))


@pytest.mark.parametrize("name", sorted(TARGETS))
@given(content=st.binary(max_size=200))
@settings(max_examples=50, derandomize=True)
def test_any_bytes_are_refused_or_read(name: str, content: bytes) -> None:
    TARGETS[name].run(content)
