"""Arbitrary bytes and mutated files: every parser parses or raises its own error, in bounded time and memory."""

import fuzz
import pytest
from deadline import outcomes

pytestmark = pytest.mark.hostile
HEADROOM = 1 << 30
"""Bytes that all parsers together may allocate beyond what their libraries take."""


@pytest.mark.parametrize(
    ("examples", "rounds"), [(4, 1), pytest.param(100, 10, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_every_parser_answers_with_a_value_or_its_own_error(examples, rounds, tmp_path, tried):
    (_, targets), *fed = outcomes(fuzz.fuzz, str(tmp_path), examples, rounds, headroom=HEADROOM)
    assert len({name for name, _ in fed}) == targets
    for name, count in fed:
        tried(f"inputs to the parser of {name}", count)
