"""featstore: extract once, fuse many times.

The public functions carry the names of the commands. Importing this package loads nothing heavy; each function's
libraries are imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featstore.api.bench import bench
    from featstore.api.cache import drift, gc
    from featstore.api.check import check
    from featstore.api.compare import compare
    from featstore.api.demo import demo
    from featstore.api.extract import extract
    from featstore.api.finetune import finetune
    from featstore.api.fuse import fuse
    from featstore.api.predict import predict
    from featstore.api.report import write_report
    from featstore.exchange.export import export_features
    from featstore.exchange.importing import import_features
    from featstore.matrix import load_matrix
    from featstore.phantom import make_phantoms
    from featstore.reproduction.paper import paper
    from featstore.store.cleanup import compact
    from featstore.store.inventory import inventory, usage
    from featstore.store.verify import verify


__all__ = [
    "bench", "check", "compact", "compare", "demo", "drift", "export_features", "extract", "finetune", "fuse",
    "gc", "import_features", "inventory", "load_matrix", "make_phantoms", "paper", "predict", "usage", "verify",
    "write_report",
]  # fmt: skip

_HOMES = {
    "bench": "featstore.api.bench",
    "check": "featstore.api.check",
    "compact": "featstore.store.cleanup",
    "compare": "featstore.api.compare",
    "demo": "featstore.api.demo",
    "drift": "featstore.api.cache",
    "export_features": "featstore.exchange.export",
    "extract": "featstore.api.extract",
    "finetune": "featstore.api.finetune",
    "fuse": "featstore.api.fuse",
    "gc": "featstore.api.cache",
    "import_features": "featstore.exchange.importing",
    "inventory": "featstore.store.inventory",
    "load_matrix": "featstore.matrix",
    "make_phantoms": "featstore.phantom",
    "paper": "featstore.reproduction.paper",
    "predict": "featstore.api.predict",
    "usage": "featstore.store.inventory",
    "verify": "featstore.store.verify",
    "write_report": "featstore.api.report",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import a public function when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'featstore' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Names of the public functions."""
    return sorted(__all__)
