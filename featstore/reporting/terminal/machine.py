"""The report on a machine as plain text for a terminal: the answer, what to mend, then the details."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

from featstore.findings import counted
from featstore.tables import size, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featstore.results.machine import CacheHealth, MachineReport, NetworkWeights, Problem

WIDTH = 78
ASK = "only a loaded engine can tell (--load-engines)"


def machine_text(report: MachineReport, *, details: bool = False) -> str:
    """Lines of `featstore doctor`; with `details` every file of weights that is not here."""
    parts = [
        headline(report),
        "\n".join(_problem(problem) for problem in report.problems),
        _machine(report),
        _versions(report),
        _missing(report, details=details),
    ]
    return "\n\n".join(part for part in parts if part)


def headline(report: MachineReport) -> str:
    """The answer in one line."""
    blocking = [problem for problem in report.problems if problem.blocking]
    if blocking:
        more = f" (and {len(blocking) - 1} more)" if len(blocking) > 1 else ""
        return f"Not ready: {blocking[0].cause}{more}"
    here = sum(network.here for network in report.weights)
    engine = f"by {report.engine}" if report.engine else f"by {' or '.join(report.engines)}"
    device = counted(len(report.gpus), "GPU") if report.gpus else counted(report.cores, "core")
    return f"Ready: {counted(here, 'network')} with weights here, computed {engine}; {device}."


def _problem(problem: Problem) -> str:
    mark = "missing" if problem.blocking else "note"
    return f"{mark}: {problem.cause}\n  {problem.remedy}"


def _machine(report: MachineReport) -> str:
    tells = {True: "yes", False: "no", None: ASK}
    memory = f"{size(report.memory_bytes)}, {size(report.memory_free_bytes)} free"
    rows = [
        ["engines", ", ".join(_engine(report, engine) for engine in report.engines) or "none"],
        ["by default", report.engine or (ASK if report.engines else "none")],
        ["processor", f"{report.cpu}, {counted(report.cores, 'core')}"],
        ["GPUs", ", ".join(report.gpus) or "none"],
        ["bfloat16", tells[report.bfloat16]],
        ["memory", memory if report.memory_bytes else "unknown"],
        *_cache(report.cache),
    ]
    return table(None, rows)


def _engine(report: MachineReport, engine: str) -> str:
    asked = report.engine_gpus.get(engine)
    if asked is None:
        return engine
    return f"{engine} ({', '.join(asked) or 'sees no GPU'})"


def _cache(cache: CacheHealth) -> list[list[str]]:
    free = f"{size(cache.free_bytes)} free"
    if not cache.present:
        return [["cache", f"{cache.path}: none yet, {free}"]]
    aside = (
        f"{counted(cache.quarantined_shards, 'file')} of vectors,"
        f" {counted(cache.quarantined_images, 'image')} that do not decode"
    )
    held = f"{size(cache.bytes)} of {counted(cache.backbones, 'backbone')} in {counted(cache.shards, 'file')}"
    return [["cache", cache.path], ["", f"{held}, {free}"], ["quarantine", aside]]


def _versions(report: MachineReport) -> str:
    there = [f"{name} {version}" for name, version in report.versions.items() if version]
    absent = [name for name, version in report.versions.items() if not version]
    lines = ["Versions: " + ", ".join(there) + "."]
    if absent:
        lines.append("Not installed: " + ", ".join(absent) + ".")
    return "\n".join(fill(line, WIDTH) for line in lines)


def _missing(report: MachineReport, *, details: bool) -> str:
    """Weights that are not here, by file, the paper's networks first."""
    here = [network.backbone for network in report.weights if network.here]
    text = fill(f"Weights here: {', '.join(here) or 'none'}.", WIDTH)
    absent = [network for network in report.weights if not network.here and network.file]
    if not absent:
        return text
    if not details:
        told = (
            f"{counted(len(absent), 'network has', 'networks have')} no weights here; Keras fetches them when first"
            f" needed. Without internet, copy the files to {report.weights_folder}: --details names them."
        )
        return f"{text}\n{fill(told, WIDTH, break_long_words=False)}"
    head = (
        f"Weights that are not here; Keras fetches them when first needed. Without internet,"
        f" copy the files to {report.weights_folder}:"
    )
    head = fill(head, WIDTH, break_long_words=False)
    kinds = {
        "Networks of the source paper": [network for network in absent if network.in_paper],
        "Other networks": [network for network in absent if not network.in_paper],
    }
    lists = [f"{kind}\n{_files(some, report.weights_folder)}" for kind, some in kinds.items() if some]
    return "\n\n".join([text, head, *lists])


def _files(absent: Sequence[NetworkWeights], folder: str) -> str:
    return table(None, [[n.backbone, n.file.removeprefix(f"{folder}/")] for n in absent])
