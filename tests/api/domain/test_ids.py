"""Ids sort by time and keep their form."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from api.domain.ids import is_id, new_id, uuid7_hex

MS = st.integers(0, 2**48 - 1)
BITS = st.integers(0, 2**74 - 1)


@given(MS, BITS, MS, BITS)
def test_later_ids_are_greater(ms: int, bits: int, other_ms: int, other_bits: int) -> None:
    one, other = uuid7_hex(ms, bits), uuid7_hex(other_ms, other_bits)
    assert (one < other) == ((ms, bits) < (other_ms, other_bits))


@given(MS, BITS)
def test_is_a_version_7_uuid(ms: int, bits: int) -> None:
    value = uuid.UUID(hex=uuid7_hex(ms, bits))
    assert (value.version, value.variant) == (7, uuid.RFC_4122)
    assert value.int >> 80 == ms


def test_form() -> None:
    made = new_id("job")
    assert is_id(made, "job")
    assert not is_id(made, "ds")
    assert not any(
        is_id(text, "job") for text in ("", "job_", "job_1", made + "0", made.upper(), made + "\n")
    )
    assert len({new_id("job") for _ in range(1000)}) == 1000
