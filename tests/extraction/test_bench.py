"""`featstore bench`: every layout that uses all cores, and the fastest of them."""

import pytest
from commandline import featstore

from featstore.api import bench as module
from featstore.api.bench import bench, parallelisms
from featstore.errors import BackboneError, UnknownNameError
from featstore.reporting.terminal.results import bench_text
from featstore.results import extraction
from featstore.results.extraction import Layout


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        (1, [(1, 1)]),
        (2, [(1, 2), (2, 1)]),
        (4, [(1, 4), (2, 2), (4, 1)]),
        (6, [(1, 6), (2, 3), (3, 2), (6, 1)]),
    ],
)
def test_layouts_use_all_cores(cores, expected):
    assert parallelisms(cores) == [Layout(processes=count, threads=each) for count, each in expected]


def test_the_fastest_is_chosen_for_each_backbone(monkeypatch):
    speeds = {("VGG16", 1): 5.0, ("VGG16", 2): 7.0, ("VGG19", 1): 4.0, ("VGG19", 2): 3.0}

    def measure(name, precision, batch, layout, _seconds):
        return extraction.Rate(
            backbone=name,
            precision=precision,
            batch_size=batch,
            processes=layout.processes,
            threads=layout.threads,
            images_per_second=speeds[name, layout.processes],
        )

    monkeypatch.setattr(module, "_measure", measure)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 2)
    result = bench(["VGG16", "VGG19"])
    assert [(r.backbone, r.processes) for r in result.best] == [("VGG16", 2), ("VGG19", 1)]
    assert len(result.rates) == 4
    assert bench_text(result).splitlines()[-2:] == [
        "  featstore extract DATA --backbones VGG16 --precision float32 --executor processes --workers 2",
        "  featstore extract DATA --backbones VGG19 --precision float32",
    ]


def test_an_unknown_backbone_is_named():
    with pytest.raises(UnknownNameError):
        bench(["Nonsense"])


def test_a_measuring_process_that_dies_is_an_error_and_not_a_hang(monkeypatch):
    monkeypatch.setattr(module, "WORKER", "featstore.no_such_module")
    with pytest.raises(BackboneError, match="ended early"):
        bench(["MobileNet025"], seconds=0.1)


@pytest.mark.slow
def test_it_measures_for_real_through_the_command():
    document = featstore("bench", "--backbones", "MobileNet025", "--seconds", "0.5", "--json").json
    assert all(rate["images_per_second"] > 1 for rate in document["rates"])
    assert document["best"][0] in document["rates"]
    assert "fastest" in featstore("bench", "--backbones", "MobileNet025", "--seconds", "0.2").out
