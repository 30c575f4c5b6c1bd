"""Which of two classes is the positive one, where nobody said so."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from featstore.errors import UnknownNameError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    Origin = Literal["asked", "names", "order", "macro"]

TWO = 2
WORDS = """
normal healthy health negative neg negatives control controls ctrl ctl benign no none non not absent
absence well clean clear false background unaffected uninfected unremarkable 0 00 nil without
gesund gesunde negativ negativer kontrolle kontrollen kein keine keiner ohne unauffällig gutartig nein
falsch
sain saine sains normale normaux négatif négative témoin témoins bénin bénigne sans aucun aucune
sano sana sanos negativo negativa controles benigno benigna ninguno ninguna sin ausente normali saudável
controllo controlli nessuno nessuna senza nenhum nenhuma sem não
正常 健康 阴性 陰性 对照 對照 良性 无 無 没有 沒有 否 対照 なし 異常なし 정상 음성 대조군 없음
норма здоровый здоровые здоров отрицательный контроль нет
"""
ABSENT = frozenset(WORDS.split())
"""Words that name the absence of a finding, alone or as the first word of a name (``no finding``, ``non-covid``)."""
MILD = frozenset(
    ["control", "controls", "benign", "benigno", "benigna", "bénin", "bénigne", "gutartig", "良性"]
)
"""Beside a word for health these are the other class."""
NEGATING = (
    "not",
    "non",
    "no",
    "un",
    "without",
    "kein",
    "keine",
    "keiner",
    "nicht",
    "ohne",
    "sans",
    "sin",
    "senza",
    "sem",
)
SIGNS = frozenset({"-", "\N{MINUS SIGN}", "\N{EN DASH}"})


@dataclass(frozen=True, slots=True)
class Positive:
    """The positive class, and who chose it.

    Attributes
    ----------
    index
        Of the class; None for averages over all classes.
    origin
        ``asked`` by the user, the only one of two ``names`` that does not say "normal", the last in sorted ``order``
        where the names say nothing, or ``macro``: there is none.
    """

    index: int | None
    origin: Origin

    @property
    def guessed(self) -> bool:
        """Whether featstore chose."""
        return self.origin in {"names", "order"}


def positive_class(classes: Sequence[str], asked: str | None = None) -> Positive:
    """Choose the positive class.

    The one asked for; else of two classes the one that is not called normal, healthy, negative, control, 0 or the
    like in some language; else, where names do not say it, the last in sorted order. More than two have none.

    Raises
    ------
    UnknownNameError
        If there is no such class.
    """
    if asked is not None:
        if asked not in classes:
            raise UnknownNameError(f"There is no class {asked!r}.", did_you_mean(asked, classes))
        return Positive(list(classes).index(asked), "asked")
    if len(classes) != TWO:
        return Positive(None, "macro")
    first, second = (says_absent(name, other) for name, other in (classes, classes[::-1]))
    if first != second:
        return Positive(1 if first else 0, "names")
    return Positive(1, "order")


def says_absent(name: str, other: str = "") -> bool:
    """Whether the name of a class says that nothing was found, or that the `other` class was not."""
    words, others = _words(name), _words(other)
    while len(words) > 1 and len(others) > 1 and words[0] == others[0]:
        words, others = words[1:], others[1:]
    whole, theirs = "".join(words), "".join(others)
    if whole in MILD and theirs in ABSENT - MILD:
        return False
    negated = _negated(words, whole, theirs)
    if negated is not None:
        return negated not in ABSENT
    if name.strip() in SIGNS:
        return True
    return whole in ABSENT or any(word in ABSENT for word in (words[:1] + words[-1:]))


def _negated(words: list[str], whole: str, theirs: str) -> str | None:
    """What a name says is not there (``covid`` of ``non-covid``); None where it denies nothing."""
    if len(words) > 1 and words[0] in NEGATING:
        return "".join(words[1:])
    for word in NEGATING:
        rest = whole.removeprefix(word)
        if theirs and rest != whole and rest and theirs.startswith(rest):
            return rest
    return None


def _words(name: str) -> list[str]:
    """Words in lower case, apart at anything that is no letter or digit and between capitals (``NoFinding``)."""
    text = unicodedata.normalize("NFC", name.strip())
    text = re.sub(r"(?<=[a-zß-ÿ])(?=[A-ZÀ-Þ])", " ", text)
    return [word for word in re.split(r"[\W_]+", text.casefold()) if word]
