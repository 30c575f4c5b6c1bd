"""Networks travel as choices, and a process keeps one object for them."""

import pickle
from pathlib import Path

import pytest

from featstore.errors import WeightsError
from featstore.extraction.networks import Networks

TRAVEL = {"*": "random:1", "Xception": "weights/x.h5", "VGG19": "imagenet"}


def arrive(networks):
    return pickle.loads(pickle.dumps(networks))  # noqa: S301 - our own bytes


def test_the_same_choices_arrive_as_the_same_object():
    first, second = (
        arrive(Networks(TRAVEL, "official")),
        arrive(Networks(dict(reversed(TRAVEL.items())), "official")),
    )
    assert first is second
    assert arrive(Networks(TRAVEL, "rescale")) is not first


def test_a_relative_file_arrives_as_the_file_it_was():
    arrived = arrive(Networks(TRAVEL, "official"))
    with pytest.raises(WeightsError, match=str(Path.cwd() / "weights" / "x.h5")):
        arrived.spec("Xception", fetch=False)


def test_seeds_and_imagenet_arrive_as_they_are():
    assert arrive(Networks(TRAVEL, "official")).spec("ResNet50", fetch=False).weights.startswith("random:1")


def test_networks_of_two_preprocessings_are_loaded_side_by_side():
    choices = {"*": "random:1"}
    wanted = [
        Networks(choices, preprocess).spec("MobileNet", fetch=False) for preprocess in ("rescale", "official")
    ]
    networks = Networks(choices, wanted[0].preprocess)
    assert [networks.load(spec).spec for spec in wanted] == wanted
