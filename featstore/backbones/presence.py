"""Which ImageNet weights are on this machine, and whether the others can be fetched: told at once, without Keras."""

from __future__ import annotations

import re
import threading
import time
import urllib.error
import urllib.request
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from featstore.backbones import catalog
from featstore.backbones.weights import IMAGENET, choice_for, keras_models_folder, packaged, weights_file
from featstore.errors import AbsentWeightsError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from featstore.backbones.catalog import Row

INSTALLED, CACHED, ABSENT, UNPUBLISHED = "installed", "in the Keras cache", "not here", "none published"
PATIENCE = 8.0
"""Seconds that the address of the weights has for any answer."""
REMEMBERED = 30.0
"""Seconds for which an answer, or none, is believed."""
ADDRESS = re.compile(r"""WEIGHT\w*\s*=\s*\(?\s*f?["'](https?://[^/"']+)""")

_answers: dict[str, tuple[float, bool]] = {}


def whereabouts(row: Row) -> str:
    """Where the ImageNet weights of a network are; looks for the file alone, and reads nothing of it."""
    try:
        here = weights_file(row) is not None
    except WeightsError:
        return ABSENT if packaged(row) else UNPUBLISHED
    return (INSTALLED if packaged(row) else CACHED) if here else ABSENT


def absent(names: Iterable[str], choices: Mapping[str, str]) -> list[str]:
    """Those of the networks that want ImageNet weights which would have to be fetched.

    Parameters
    ----------
    names
        Catalogue names.
    choices
        Choice of weights by name, as for `featstore.backbones.weights.choice_for`.
    """
    wanted = [name for name in dict.fromkeys(names) if choice_for(name, choices) == IMAGENET]
    return [name for name in wanted if weights_file(catalog.row(name)) is None]


def require_reachable(row: Row) -> None:
    """Refuse to fetch weights of a network from an address that does not answer, before anything is loaded for it.

    Raises
    ------
    AbsentWeightsError
        If it does not. Where Keras does not tell the address, the download itself has to find out.
    """
    if not can_fetch(row):
        raise unreachable([row.name])


def can_fetch(row: Row) -> bool:
    """Whether the server of a network's weights answers, or nobody knows which that is."""
    address = _address(row.builder.rpartition(":")[2])
    if address is None:
        return True
    asked, answer = _answers.get(address, (-REMEMBERED, False))
    if time.monotonic() - asked > REMEMBERED:
        answer = _answers_in_time(address)
        _answers[address] = time.monotonic(), answer
    return answer


def unreachable(names: Sequence[str]) -> AbsentWeightsError:
    """Error for weights that are not here and cannot be fetched."""
    return AbsentWeightsError(
        f"{_whose(names)} not on this machine, and cannot be fetched: the address that Keras has for them does not"
        " answer.",
        f"Name a file for each (--weights {names[0]}=FILE.h5), or run the same command on a machine with internet and"
        f" copy what it leaves in ~/.keras/models to {keras_models_folder()}. `featstore backbones` shows which"
        " weights are here.",
        names,
    )


def unfetched(names: Sequence[str]) -> AbsentWeightsError:
    """Error for weights that are not here and must not be fetched."""
    return AbsentWeightsError(
        f"{_whose(names)} not on this machine yet.",
        f"Leave out --dry-run to let Keras download them, or name a file for each: --weights {names[0]}=FILE.h5."
        " `featstore backbones` shows which weights are here.",
        names,
    )


def _whose(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"The ImageNet weights of {names[0]} are"
    return f"The ImageNet weights of {len(names)} networks ({', '.join(names)}) are"


@lru_cache
def _address(name: str) -> str | None:
    """Scheme and host from which Keras fetches the weights of a network, read from its source, not imported."""
    found = find_spec("keras")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "src" / "applications"
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("*.py"))]
    own = [text for text in texts if re.search(rf"^def {re.escape(name)}\(", text, re.MULTILINE)]
    addresses = [match[1] for text in (*own, *texts) for match in ADDRESS.finditer(text)]
    return addresses[0] if addresses else None


def _answers_in_time(address: str) -> bool:
    """Whether anything answers at an address, by the proxies of the environment; a name server may hang as well."""
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(_answers_at_all(address)), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(answers and answers[0])


def _answers_at_all(address: str) -> bool:
    request = urllib.request.Request(f"{address}/", method="HEAD")  # noqa: S310 - https, from Keras' source
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE):  # noqa: S310
            return True
    except urllib.error.HTTPError:  # a server that has no such page is a server
        return True
    except OSError:
        return False
