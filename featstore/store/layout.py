"""Where things lie in a cache folder. Folder names are for people; the key inside each shard decides."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from featstore.fingerprint import short_digest

if TYPE_CHECKING:
    from pathlib import Path

    from featstore.types import BackboneSpec, Decoding, FeatureKey, View

SHARD_SUFFIX = ".h5"
BACKBONE_PAGE = "backbone.json"
LEARNED_PAGE = "learned.json"
"""Beside the vectors of tuned weights: the images that these have learned from. Nothing in a cache can replace it."""
READABLE = 40


def features_folder(root: Path) -> Path:
    """Return the folder that holds all shards."""
    return root / "features"


def quarantine_folder(root: Path) -> Path:
    """Return the folder that holds bad shards and the table of bad images."""
    return root / "quarantine"


def index_folder(root: Path) -> Path:
    """Return the folder of the index, which may be deleted at any time."""
    return root / "index"


def backbone_folder(root: Path, backbone: BackboneSpec) -> Path:
    """``features/<backbone>@<key8>``."""
    return features_folder(root) / f"{backbone.name}@{short_digest(asdict(backbone))}"


def shard_folder(root: Path, key: FeatureKey) -> Path:
    """``features/<backbone>@<key8>/<recipe-slug>@<key8>/seed-0003``."""
    view = f"{slug(key.view.recipe)}@{_view_digest(key.view, key.decoding)}"
    return backbone_folder(root, key.backbone) / view / f"seed-{key.view.seed:04d}"


def names(folder: Path) -> tuple[str, str, int]:
    """Backbone, view and seed as the name of a shard folder tells them: for people, where no key can be read."""
    backbone, view, seed = folder.parts[-3:]
    digits = seed.removeprefix("seed-")
    number = (
        int(digits) if digits.isascii() and digits.isdigit() else -1
    )  # a stranger names folders as he likes
    return backbone.rpartition("@")[0], view.rpartition("@")[0], number


def slug(recipe: str) -> str:
    """Shorten a recipe's text to a folder name: ``rotate(0,40)|flip(hv)`` becomes ``rotate0-40-fliphv``."""
    safe = "".join(c if c.isalnum() or c in ".-" else "" if c in "()" else "-" for c in recipe)
    return safe[:READABLE].strip("-.") or "recipe"


def _view_digest(view: View, decoding: Decoding) -> str:
    return short_digest({"recipe": view.recipe, "decoding": asdict(decoding)})
