"""What a stranger made of a cache changes nothing outside of it, kills nothing and costs bounded memory."""

from collections import Counter

import forged
import pytest
from deadline import outcomes

pytestmark = pytest.mark.hostile


@pytest.mark.parametrize("count", [6, pytest.param(500, marks=pytest.mark.slow)])
def test_a_forged_cache_changes_nothing_outside_of_it(tmp_path, tried, count):
    """Links, names, sizes, kinds and owners, through verify, ls, du, gc, compact, repair and what extraction does."""
    found = outcomes(forged.caches, str(tmp_path), count, 11, headroom=1 << 30)
    assert len(found) == count
    tried("forged caches", count)
    kinds = Counter(kind for done, _ in found for kind in done)
    for kind, times in kinds.items():
        tried(kind, times)
    assert sum(refused > 0 for _, refused in found) > count // 10
    assert count < 500 or len(kinds) >= 9
