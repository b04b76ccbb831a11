"""Sizes: in kB, MB and GB, wherever a command says one."""

import pytest

from textgen.messages import byte_count


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (None, "an unknown amount"),
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (9_949, "9.9 kB"),
        (9_950, "10 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (512 << 20, "537 MB"),
        (16_249_000_000, "16.2 GB"),
        (2 * 10**12, "2.0 TB"),
        (12_345 * 10**12, "12,345.0 TB"),
    ],
)
def test_bytes_are_said_in_decimal_units(count, shown):
    assert byte_count(count) == shown
