"""Images that something has learned from, in digests: to be recognised later without a path, a name or a picture."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featstore.fingerprint import digest, digest_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class KnownImages:
    """Digests of images.

    Attributes
    ----------
    ids
        Image ids: digests of the bytes.
    pixels
        Digests of the decoded pixels, which a copy saved anew as PNG has as well.
    groups
        Digests of the names of their groups (patients), see `salted`.
    salt
        What these names were salted with.
    is_complete
        Whether these are all; not where an earlier model did not tell its own.
    """

    ids: frozenset[str] = frozenset()
    pixels: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    salt: str = ""
    is_complete: bool = True

    def __or__(self, other: KnownImages) -> KnownImages:
        """Both together; their names must have been salted alike."""
        return KnownImages(
            self.ids | other.ids,
            self.pixels | other.pixels,
            self.groups | other.groups,
            self.salt,
            self.is_complete and other.is_complete,
        )

    def has_group(self, name: str) -> bool:
        """Whether an image of a group of this name is among them."""
        return bool(self.groups) and salted(self.salt, name) in self.groups


def salt_of(ids: Iterable[str]) -> str:
    """Salt for the names of these images' groups: another one for other images, and the same in every repetition.

    It is no secret, since it lies beside what it salts. It keeps digests of names from being looked up in tables,
    and from being matched between two files that do not share their images anyway.
    """
    return digest(["salt of group names", *sorted(ids)])


def salted(salt: str, name: str) -> str:
    """Digest of a group's name; capitals, surrounding spaces and the encoding of accents do not matter."""
    plain = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    return digest_bytes(f"{salt}:{plain}".encode("utf-8", "surrogatepass"))


def salted_names(salt: str, names: Iterable[str]) -> frozenset[str]:
    """Digests of the names of groups."""
    return frozenset(salted(salt, name) for name in set(names))
