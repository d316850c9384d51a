# SPDX-License-Identifier: Apache-2.0
"""One question, one message: is this a whole number in its range?"""

import numpy as np
import pytest

from mcuformer.checks import is_number, is_whole, whole
from mcuformer.errors import ConfigError, DataError


@pytest.mark.parametrize("value", [True, False, 1.0, "1", None, np.int64(1), [1]])
def test_only_an_int_is_a_whole_number(value):
    assert not is_whole(value)
    with pytest.raises(ConfigError, match="must be a whole number$"):
        whole("n", value)


def test_the_ends_of_a_range_belong_to_it():
    assert [n for n in range(-3, 9) if is_whole(n, 0, 5)] == [0, 1, 2, 3, 4, 5]
    assert whole("n", 5, 0, 5) == 5 and whole("n", 0, 0) == 0 and whole("n", -7, most=-7) == -7


@pytest.mark.parametrize(
    ("value", "limits", "words"),
    [
        (-1, {"least": 0}, "n = -1: must be a whole number from 0"),
        (9, {"least": 1, "most": 8}, "n = 9: must be a whole number from 1 to 8"),
        (9, {"most": 8}, "n = 9: must be a whole number, at most 8"),
        (2**63, {"least": 0, "most": 2**63 - 1}, f"n = {2**63}: must be a whole number from 0 to 2^63 - 1"),
        ("x", {"least": 0, "unit": "bytes"}, "n = 'x': must be a whole number of bytes from 0"),
    ],
)
def test_the_message_names_value_and_range(value, limits, words):
    with pytest.raises(DataError) as caught:
        whole("n", value, **limits, error=DataError)
    assert str(caught.value) == words


def test_a_bool_is_no_number():
    assert [v for v in (1, 1.5, float("nan"), True, "1", None) if is_number(v)][:2] == [1, 1.5]
    assert not any(map(is_number, (True, "1", None, 1j)))
