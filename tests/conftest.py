"""What every test can count on: no user settings, no shared cache, patient hypothesis.

Properties explore new examples at every run on a desk, and repeat the same ones in CI. The fast tests try fewer of
them, and the slow ones all of those properties again with as many as hypothesis advises, or as they ask for.
"""

import os
import signal
import sys
from collections import Counter, defaultdict

# Two workers have two cores: one thread each, set before NumPy is loaded.
for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
    os.environ.setdefault(_threads, "1")
# Hundreds of processes import the same modules: compiled once, and not by each of them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# A shell starts its background jobs deaf to Ctrl-C, and they pass it on to the processes whose Ctrl-C is tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import commandserver  # noqa: E402
import pytest  # noqa: E402
from hypothesis import is_hypothesis_test, settings  # noqa: E402

from featstore.backbones.precision import prefer_onednn  # noqa: E402

prefer_onednn()  # as the commands do, before a test imports TensorFlow, which reads its settings once

FEW, MANY = 20, 100
"""Examples of a property among the fast tests, also where it asks for more, and among the slow ones."""
for _examples in (FEW, MANY):
    settings.register_profile(f"explore-{_examples}", deadline=None, max_examples=_examples)
    settings.register_profile(f"repeat-{_examples}", deadline=None, derandomize=True, max_examples=_examples)


@pytest.fixture(scope="session")
def _elsewhere(tmp_path_factory):
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(autouse=True)
def _not_in_the_checkout(request, monkeypatch):
    """No default writes into the checkout or the user's home: a test runs in the folder that it asks for.

    Thousands ask for none, and to make and remove one takes longer than they do.
    """
    commandserver.remember()
    folder = "tmp_path" if "tmp_path" in request.fixturenames else "_elsewhere"
    monkeypatch.chdir(request.getfixturevalue(folder))
    monkeypatch.delenv("FEATSTORE_CACHE", raising=False)


@pytest.fixture(autouse=True)
def _no_network_outlives_a_slow_test(request):
    """Networks sit in reference cycles of whose gigabytes Python's collector knows nothing, so that they pile up.

    Fast tests use small networks, and collecting after each of them would take longer than the tests. So it would
    after those of a thousand slow tests that make none, in a process where an earlier test has imported Keras.
    """
    yield
    if "keras" in sys.modules and request.node.get_closest_marker("slow"):
        state = sys.modules["keras.src.backend.common.global_state"]
        if vars(state.GLOBAL_STATE_TRACKER):  # empty from one clearing to the next layer
            sys.modules["keras"].backend.clear_session()


TOGETHER = ("tests/backbones/", "tests/cli/", "tests/reporting/")
"""Folders whose tests share what is dear: TensorFlow and networks, servers of commands and an extracted data set."""
NETWORKS = (
    "tests/extraction/test_finetune.py",
    "tests/extraction/test_networks.py",
    "tests/fusion/test_head.py",
    "tests/fusion/test_networks.py",
    "tests/images/test_decode.py",
    "tests/images/test_device_warp.py",
    "tests/images/test_transform.py",
    "tests/images/test_warp.py",
)
"""Files that use Keras in their own process: fast, they go with the backbones, to one of the workers."""


APART = ("tests/backbones/test_catalog.py", "tests/backbones/test_folding.py")
"""Files whose slow tests share nothing: each makes a network of its own."""
FIRST = ("tests/test_seven_networks.py", "tests/test_real_data.py", "tests/reproduction/", *TOGETHER)
"""What takes longest begins first, so that no process is left alone with it at the end."""


def is_slow(config):
    """Whether it is the slow tests that run."""
    return config.option.markexpr.startswith("slow")


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by markers
def pytest_collection_modifyitems(config, items):
    """What comes apart goes last among slow tests: its small pieces fill up whichever process is done first."""
    slow = is_slow(config)
    for item in items:
        if is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker("property")
            own = item.obj._hypothesis_internal_use_settings
            if not slow and own.max_examples > FEW:
                item.obj._hypothesis_internal_use_settings = settings(own, max_examples=FEW)

    def rank(item):
        if slow and item.nodeid.startswith(APART):
            return len(FIRST) + 1
        if not slow and item.nodeid.startswith(NETWORKS):
            return FIRST.index("tests/backbones/")
        return next((n for n, start in enumerate(FIRST) if item.nodeid.startswith(start)), len(FIRST))

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `--dist loadfile` a process runs all tests of a file, and all of such a folder."""
    from xdist.scheduler import LoadFileScheduling

    slow = is_slow(config)

    class Sharing(LoadFileScheduling):
        def _split_scope(self, nodeid):
            if slow and nodeid.startswith(APART):
                return nodeid
            if not slow and nodeid.startswith(NETWORKS):
                return "tests/backbones/"
            shared = (
                folder
                for folder in TOGETHER
                if nodeid.startswith(folder) and not (slow and "backbones" in folder)
            )
            return next(shared, super()._split_scope(nodeid))

    return Sharing(config, log) if config.getvalue("dist") == "loadfile" else None


TOLD = ("crash", "concurrency", "hostile")
"""Markers whose tests say at the end what they tried, and how many."""


class Counts:
    """What tests tried, by marker; told by their reports, which also cross from a worker of pytest-xdist."""

    def __init__(self):
        self.counts = defaultdict(Counter)

    def pytest_runtest_logreport(self, report):
        if report.when == "teardown":
            for marker, (what, times) in (entry for entry in report.user_properties if entry[0] in TOLD):
                self.counts[marker][what] += times

    def pytest_terminal_summary(self, terminalreporter):
        for marker, counts in sorted(self.counts.items()):
            told = ", ".join(f"{times:,} {what}" for what, times in counts.items())
            terminalreporter.write_line(f"{marker}: {told}")


def pytest_configure(config):
    config.pluginmanager.register(Counts())
    settings.load_profile(
        f"{'repeat' if os.environ.get('CI') else 'explore'}-{MANY if is_slow(config) else FEW}"
    )


@pytest.fixture
def tried(request):
    """Count what a test tried: ``tried("kills")``, ``tried("files", 12)``, ``tried("shards bad", 0)``."""
    (marker,) = {mark.name for mark in request.node.iter_markers()}.intersection(TOLD)

    def count(what, times=1):
        request.node.user_properties.append((marker, (what, times)))

    return count
