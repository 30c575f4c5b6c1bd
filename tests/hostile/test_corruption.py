"""Damage on the disk is found or harmless, never hangs or crashes a reader, and the next extraction heals it."""

from collections import Counter

import corruption
import pytest
from deadline import outcomes

pytestmark = pytest.mark.hostile

SHORT = {"shards": 6, "index": 9, "quarantine_rows": 9, "rates": 40, "bundles": 6, "manifests": 40}
LONG = {"shards": 120, "index": 150, "quarantine_rows": 100, "rates": 200, "bundles": 70, "manifests": 200}
"""Rounds. In one of shards or bundles six files are damaged; in one of the index or the table, all of them."""


@pytest.mark.parametrize("rounds", [SHORT, pytest.param(LONG, marks=pytest.mark.slow)], ids=["short", "long"])
def test_damage_is_found_or_harmless_and_heals(rounds, tmp_path, tried):
    found = outcomes(corruption.rounds_of, str(tmp_path), len(rounds) + rounds["shards"], rounds)
    assert Counter(name for name, _ in found) == rounds
    for name, kinds in found:
        tried(f"damaged {name.replace('_', ' ')}", sum(kinds.values()))
    for kind, times in sum((kinds for _, kinds in found), Counter()).items():
        tried(kind, times)
    assert rounds is SHORT or sum(sum(kinds.values()) for _, kinds in found) >= 1000
