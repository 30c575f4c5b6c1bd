"""plan = wanted - stored, and nothing else is ever computed."""

from fakes import key, spec
from hypothesis import given
from hypothesis import strategies as st

from featstore.extraction.plan import image_blocks, plan
from featstore.store.shard import IdSet
from featstore.types import View

KEYS = [
    key(spec(name, side), view)
    for name, side in (("Alpha", 16), ("Beta", 16), ("Gamma", 24))
    for view in (View(), View("flip(h)", 1))
]
IDS = [f"{i:064x}" for i in range(12)]
subsets = st.frozensets(st.sampled_from(IDS))
stores = st.fixed_dictionaries(dict.fromkeys(KEYS, subsets))


def pairs(todo, rows):
    return [
        (k, i)
        for block in image_blocks(todo, rows)
        for step in block.steps
        for k in step.keys
        for i in step.ids
    ]


@given(stores, subsets, st.integers(1, 15))
def test_exactly_what_is_missing_is_computed_once(stored, bad, rows):
    todo = plan(KEYS, IDS, stored, bad)
    computed = pairs(todo, rows)
    assert len(computed) == len(set(computed))
    assert set(computed) == {(k, i) for k in KEYS for i in set(IDS) - stored[k] - bad}
    assert todo.rows_missing == len(computed)
    assert todo.rows_missing + todo.rows_stored == len(KEYS) * len(set(IDS) - bad)


@given(stores, st.integers(1, 15))
def test_a_step_holds_one_view_and_one_size_and_fits_its_block(stored, rows):
    for block in image_blocks(plan(KEYS, IDS, stored), rows):
        assert len(block.ids) <= rows
        for step in block.steps:
            assert set(step.ids) <= set(block.ids)
            assert {k.view for k in step.keys} == {step.view}
            assert {k.backbone.input_size for k in step.keys} == {step.input_size}


def test_backbones_of_one_size_share_their_pixels():
    (block,) = image_blocks(plan(KEYS, IDS, {}))
    assert sorted(len(step.keys) for step in block.steps) == [1, 1, 2, 2]


def test_nothing_missing_is_no_work():
    todo = plan(KEYS, IDS, dict.fromkeys(KEYS, IDS))
    assert (todo.rows_missing, todo.bytes_missing, list(image_blocks(todo))) == (0, 0, [])


def test_views_of_the_same_images_share_one_answer():
    """Fourteen keys of a million images would else take fourteen times the memory, and the time."""
    held = IdSet.of(IDS[:5])
    cells = plan(KEYS, IDS, dict.fromkeys(KEYS[1:], held)).key_plans
    assert len({id(cell.missing) for cell in cells[1:]}) == 1
    assert [set(cell.missing) for cell in cells] == [set(IDS), *[set(IDS[5:])] * 5]


def test_more_stored_than_wanted_does_no_harm():
    assert plan(KEYS[:1], IDS[:2], {KEYS[0]: IDS}).rows_stored == 2


def test_bytes_are_those_of_float32_vectors():
    assert plan(KEYS[:1], IDS, {}).bytes_missing == 12 * 12 * 4
