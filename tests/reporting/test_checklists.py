"""Checklists and card: the sources' own numbers, and nothing that a run cannot know."""

from dataclasses import replace

import pytest
from msgspec import structs

from featstore.reporting.page.model_card import (
    CLAIM,
    CLAIM_ANSWERS,
    TRIPOD,
    TRIPOD_ANSWERS,
    fill_checklists,
    model_card,
)
from featstore.reporting.page.tables import keys_table
from featstore.reporting.run_record import read_records

TRIPOD_ITEMS = (
    "1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 7 8a 8b 8c 9a 9b 9c 10 11 12a 12b 12c 12d 12e 12f 12g 13 14 15 16 17"
    " 18a 18b 18c 18d 18e 18f 19 20a 20b 20c 21 22 23a 23b 24 25 26 27a 27b 27c"
)
"""As in table 2 of the statement: 27 items, 52 with their parts."""
FOR_AUTHORS = {
    "CLAIM": "2 3 4 5 7 8 11 13 14 15 16 17 18 21 33 34 36 41 42 44",
    "TRIPOD": "3a 5b 6a 8a 10 14 17 18a 19 25",
}


@pytest.fixture(scope="module")
def records(world):
    return read_records([world.compare, world.fuse])


def test_the_items_are_numbered_as_in_the_sources():
    assert [number for part in CLAIM.values() for number in part] == [str(n) for n in range(1, 45)]
    assert [number for part in TRIPOD.values() for number in part] == TRIPOD_ITEMS.split()


def test_every_prepared_answer_belongs_to_an_item():
    assert set(CLAIM_ANSWERS) <= {number for part in CLAIM.values() for number in part}
    assert set(TRIPOD_ANSWERS) <= set(TRIPOD_ITEMS.split())


def test_what_only_authors_know_is_left_to_them(records):
    claim, tripod = fill_checklists(records)
    for items, numbers in ((claim.items, FOR_AUTHORS["CLAIM"]), (tripod.items, FOR_AUTHORS["TRIPOD"])):
        known = {item.number: item.known for item in items}
        assert [number for number in numbers.split() if known[number]] == []


def test_one_answer_of_several_runs_stands_once_and_different_ones_bear_names(records):
    claim, _ = fill_checklists(records)
    known = {item.number: item.known for item in claim.items}
    classes = records[0].matrix["classes"]
    told = f"ill {classes['ill']}, well {classes['well']}"
    assert known["35"] == (f"96 images of 48 patients (groups); {told}.",)
    assert [sentence.partition(":")[0] for sentence in known["19"]] == ["compare", "vote"]
    assert any("no patient is on both sides" in sentence for sentence in known["20"])


def test_an_extraction_has_neither_model_nor_answers(records):
    assert fill_checklists([]) == ()
    assert [section.title for section in model_card(records[1])] == [
        "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data",
        "Quantitative analyses", "Ethical considerations", "Caveats and recommendations",
    ]  # fmt: skip
    assert all(section.open for section in model_card(records[1])), (
        "something is left to the authors in every section"
    )


def test_a_card_says_whose_it_is(records):
    compare, vote = (" ".join(model_card(record)[0].known) for record in records)
    assert "A comparison keeps no model" in compare
    assert "vote_backbones: One logistic regression per backbone" in vote


def test_training_data_are_those_that_the_model_was_fitted_on(records):
    compare, vote = (model_card(record)[5].known for record in records)
    sizes = records[1].outcome.sizes
    assert sizes == {"train": 72, "test": 24}
    assert vote[1] == "Fitted on 72 of them (train), without the 24 of test."
    assert compare[1] == "In each fold fitted on what is not tested in it."


def test_what_no_network_computed_is_not_called_a_network_and_has_no_pixels(records):
    """Imported vectors and covariates stand among the blocks of a matrix, with a side of 0 or 1 pixels."""
    run = records[1]
    network = run.matrix["backbones"][0]
    tables = [
        {**network, "name": name, "weights": f"foreign:{'8' * 64}", "input_size": side, "dimension": width}
        for name, side, width in (("Theirs", 0, 107), ("covariates", 1, 3))
    ]
    blocks = [network, *({**one, "preprocess": "foreign"} for one in tables)]
    mixed = replace(run, outcome=structs.replace(run.outcome, matrix={**run.matrix, "backbones": blocks}))
    text = " ".join(" ".join(section.known) for section in model_card(mixed))
    _, tripod = fill_checklists([mixed])
    known = {item.number: " ".join(item.known) for item in tripod.items}
    side = network["input_size"]
    assert f"resized to squares of {side} pixels" in known["7"]
    assert "foreign" not in text + known["7"]
    assert "Global average pooling of 1 frozen network (" in text
    assert "Theirs: 107 values that another program computed, imported." in known["9b"]
    assert "Covariates of the table enter as 3 values." in known["9b"]
    assert "no clinical variable" not in known["9b"]
    assert (
        "no clinical variable" in {i.number: " ".join(i.known) for i in fill_checklists([run])[1].items}["9b"]
    )
    assert [row[2].text for row in keys_table(mixed).rows[:: len(run.matrix["views"])]] == [
        str(side),
        "\N{EN DASH}",
        "\N{EN DASH}",
    ]
