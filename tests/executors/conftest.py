"""Executors to try, and a dask cluster of two real worker processes."""

from __future__ import annotations

import warnings
from contextlib import contextmanager

import pytest

from featstore import registry

PACKAGE = "featstore.executors"


@contextmanager
def quiet_dask(workers=2):
    """distributed warns of busy ports and of unclosed resources of its own."""
    from distributed import LocalCluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as cluster:
            yield cluster


@pytest.fixture(scope="module")
def cluster():
    """Two dask worker processes with a nanny each, which starts another in place of a dead one.

    Its event loops never rest: kept until the end, they slow all later tests down.
    """
    with quiet_dask() as cluster:
        yield cluster


@pytest.fixture(params=registry.names(PACKAGE))
def executor(request):
    """Each executor that exists."""
    return make(request, request.param)


@pytest.fixture(params=[pytest.param("dask", marks=pytest.mark.slow), "processes"])
def remote(request):
    """Each executor that uses other processes."""
    return make(request, request.param)


def make(request, name):
    settings = {"serial": {}, "processes": {"workers": 2}}
    if name not in settings:
        settings["dask"] = {"workers": 2, "scheduler": request.getfixturevalue("cluster").scheduler_address}
    return registry.load(PACKAGE, name)(**settings[name])
