"""Whether two names are one name spelt in two ways, and whether a name is one at all."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_SEPARATORS = re.compile(r"[\s_.,:;'\u2019()\-\u2010-\u2015]+")
_NUMBER = re.compile(r"[+-]?\d{1,30}(?:\.\d{0,30})?")
_LEADING = re.compile(r"(?:(?<=^)|(?<=[^\W\d])|(?<= ))0+(?=\d)")
_MISSING = frozenset({
    "", "#n/a", "#n/a n/a", "#na", "#null!", "#ref!", "#value!", "-", "--", "-nan", ".", "<na>", "?", "empty",
    "missing", "n.a", "n.a.", "n/a", "na", "nan", "nat", "nil", "no label", "none", "not applicable",
    "not available", "not known", "null", "tbd", "todo", "unclassified", "undefined", "unk", "unknown",
    "unlabeled", "unlabelled", "unspecified",
})  # fmt: skip


def spelling_key(name: str, *, accents: bool = False) -> str:
    """Text that is equal for two spellings of a name.

    Capitals, the encoding of accents, invisible characters, spaces and punctuation between words do not matter, nor
    do zeros before a number. A sign at the end (``HER2+``) and what stands between two digits (``1.5``) do.

    Parameters
    ----------
    name
        Any text.
    accents
        Whether an accent makes another name.
    """
    text = unicodedata.normalize("NFKC", name).casefold()
    text = "".join(c for c in text if unicodedata.category(c) != "Cf").strip()
    if not accents:
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    if _NUMBER.fullmatch(text):
        whole, _, rest = text.partition(".")
        rest = rest.rstrip("0")
        return f"{int(whole)}.{rest}" if rest else str(int(whole))
    return _LEADING.sub("", _joined(text)) or text


def _joined(text: str) -> str:
    """Leave out what separates words; keep a gap between two digits, and signs at either end."""

    def gap(match: re.Match[str]) -> str:
        before, after = text[: match.start()][-1:], text[match.end() :][:1]
        if not before or not after:
            return match[0].strip() if match[0].strip() in {"-", "+"} else ""
        if before.isdigit() and after.isdigit():
            return "." if match[0].strip() == "." else " "
        return "" if before.isalnum() and after.isalnum() else match[0].strip()

    return _SEPARATORS.sub(gap, text)


def is_missing(name: str) -> bool:
    """Whether a name is one of the usual marks of a missing value."""
    return " ".join(name.casefold().split()).strip("'\"[]{}") in _MISSING


def spelt_alike(names: Iterable[str], *, accents: bool = False) -> list[list[str]]:
    """Names that are spellings of one another, each set sorted."""
    together: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        together[spelling_key(name, accents=accents)].append(name)
    return [same for same in together.values() if len(same) > 1]
