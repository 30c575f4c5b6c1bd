"""Files that the data passes: from an image to its vector, from a matrix to its verdict, from a run to its page.

A file counts if the data itself goes through one of its functions: as an argument or as what is returned, alone or
in a list, tuple, dict or dataclass. The data is

* of an image: its path or record, the bytes of its file, its pixels, its vector;
* of a matrix: the matrix, any array of numbers as long as a fold, and the results that become the verdict;
* of a run: its record, the results in it, their pictures, tables and pieces of the page.

Who only prepares, counts, estimates, locks or looks at keys and ids is beside the path; "all that ran" counts these,
too: every file of featstore with a function that is called. What is only imported counts in neither.
"""

from __future__ import annotations

import inspect
import os
import sys
import tempfile
import threading
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import featstore
from featstore.evaluation import leakage
from featstore.evaluation.estimates import CandidateScores
from featstore.matrix import FeatureMatrix
from featstore.reporting.figures.style import Picture
from featstore.reporting.run_record import RunRecord
from featstore.results.document import Result
from featstore.tables import Table
from featstore.types import ImageRecord

if TYPE_CHECKING:
    from collections.abc import Callable

HOME = f"{Path(featstore.__file__).parent}{os.sep}"
GOALS = {"image to vector": 22, "matrix to verdict": 24, "run to page": 22}
FEWEST_NUMBERS, PIECE_OF_PAGE = 256, 200
FOLDS, SHORTEST_FOLD = 3, 8
MOST_PARTS = 12


@dataclass
class Trace:
    """Files of featstore whose code runs, and those of them that the data goes through."""

    is_data: Callable[[Any], bool]
    ran: set[str] = field(default_factory=set)
    passed: set[str] = field(default_factory=set)

    def __call__(self, frame: Any, event: str, result: Any) -> None:
        """Look at a call or a return, as `sys.setprofile` tells of it."""
        code = frame.f_code
        is_function = (
            code.co_flags & inspect.CO_OPTIMIZED
        )  # bodies of modules and classes run when they are imported
        if event not in {"call", "return"} or not is_function or not code.co_filename.startswith(HOME):
            return
        name = code.co_filename.removeprefix(HOME)
        self.ran.add(name)
        if name not in self.passed:
            arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            values = [result] if event == "return" else [frame.f_locals.get(one) for one in arguments]
            if any(map(self.carries, values)):
                self.passed.add(name)

    def carries(self, value: Any, depth: int = 2) -> bool:
        """Whether a value is the data, or holds it."""
        if self.is_data(value):
            return True
        return depth > 0 and any(self.carries(one, depth - 1) for one in parts(value)[:MOST_PARTS])


def parts(value: Any) -> list[Any]:
    """What a list, tuple, dict or dataclass holds."""
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, one.name, None) for one in fields(value)]
    return list(
        value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    )


def count(what: str, work: Callable[[], Any], is_data: Callable[[Any], bool]) -> None:
    """Do the work, and print through how many files the data went."""
    trace = Trace(is_data)
    threading.setprofile(trace)
    sys.setprofile(trace)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    print(f"{what}: {len(trace.passed)} files (goal {GOALS[what]}); all that ran: {len(trace.ran)}")
    print("   ", *sorted(trace.passed))
    print("    beside it:", *sorted(trace.ran - trace.passed))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        data = featstore.make_phantoms("data", patients=12, slices=2)
        files = {record.path: record.path.read_bytes() for record in featstore.scan(data).records}
        contents = set(files.values())
        chosen = {"cache": "cache", "weights": {"*": "random:1"}}

        def of_image(value: Any) -> bool:
            if isinstance(value, np.ndarray):
                return value.dtype in {np.dtype("u1"), np.dtype("f4")} and value.size >= FEWEST_NUMBERS
            return isinstance(value, ImageRecord) or (
                (isinstance(value, Path) and value in files)
                or (isinstance(value, bytes) and value in contents)
            )

        count(
            "image to vector", lambda: featstore.extract(data, backbones=["MobileNet025"], **chosen), of_image
        )
        featstore.extract(data, backbones=["MobileNet"], **chosen)
        matrix = featstore.load_matrix(data, **chosen)
        leakage.read_matrix = lambda *_, **__: matrix

        def of_matrix(value: Any) -> bool:
            if isinstance(value, np.ndarray):
                return value.dtype.kind in "fi" and max(value.shape, default=0) >= SHORTEST_FOLD
            return isinstance(value, FeatureMatrix | CandidateScores | Result)

        asked = {
            "strategies": ["concat_logreg"],
            "subsets": "all",
            "folds": FOLDS,
            "positive": "covid",
            "out": "run",
        }
        count("matrix to verdict", lambda: featstore.compare(data, **asked, **chosen), of_matrix)

        def of_run(value: Any) -> bool:
            if isinstance(value, str):
                return len(value) >= PIECE_OF_PAGE and "<" in value
            return isinstance(value, RunRecord | Result | Picture | Table)

        count("run to page", lambda: featstore.write_report(["run"], "page.html"), of_run)


if __name__ == "__main__":
    main()
