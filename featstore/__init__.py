"""featstore: extract once, fuse many times.

The public functions carry the names of the commands. Importing this package loads nothing heavy; each function's
libraries are imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featstore.demonstration import demo
    from featstore.evaluation.check import check
    from featstore.evaluation.compare import compare
    from featstore.evaluation.fuse import fuse
    from featstore.evaluation.predict import predict
    from featstore.exchange.export import export_features
    from featstore.exchange.foreign import import_features
    from featstore.extraction.bench import bench
    from featstore.extraction.drift import drift
    from featstore.extraction.extract import extract
    from featstore.extraction.finetune import finetune
    from featstore.extraction.garbage import gc
    from featstore.images.phantom import make_phantoms
    from featstore.matrix import load_matrix
    from featstore.report.page.writing import write_report
    from featstore.reproduction.paper import paper
    from featstore.store.compaction import compact
    from featstore.store.inventory import inventory, usage
    from featstore.store.verification import verify

__all__ = [
    "bench", "check", "compact", "compare", "demo", "drift", "export_features", "extract", "finetune", "fuse",
    "gc", "import_features", "inventory", "load_matrix", "make_phantoms", "paper", "predict", "usage", "verify",
    "write_report",
]  # fmt: skip

_HOMES = {
    "bench": "featstore.extraction.bench",
    "check": "featstore.evaluation.check",
    "compact": "featstore.store.compaction",
    "compare": "featstore.evaluation.compare",
    "demo": "featstore.demonstration",
    "drift": "featstore.extraction.drift",
    "export_features": "featstore.exchange.export",
    "extract": "featstore.extraction.extract",
    "finetune": "featstore.extraction.finetune",
    "fuse": "featstore.evaluation.fuse",
    "gc": "featstore.extraction.garbage",
    "import_features": "featstore.exchange.foreign",
    "inventory": "featstore.store.inventory",
    "load_matrix": "featstore.matrix",
    "make_phantoms": "featstore.images.phantom",
    "paper": "featstore.reproduction.paper",
    "predict": "featstore.evaluation.predict",
    "usage": "featstore.store.inventory",
    "verify": "featstore.store.verification",
    "write_report": "featstore.report.page.writing",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import a public function when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'featstore' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Names of the public functions."""
    return sorted(__all__)
