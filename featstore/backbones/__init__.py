"""Frozen networks: the catalogue, their weights, and the compiled forward pass."""

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from featstore.backbones.weights import BackboneSummary
    from featstore.tables import Rows


class _CallablePackage(ModuleType):
    """`featstore.backbones` is this package, and calling it lists what it holds, in any order of imports."""

    @property
    def __wrapped__(self) -> "Callable[..., Rows[BackboneSummary]]":
        """The function that a call of the package is; `inspect` and `help` look for it here."""
        from featstore.backbones.weights import backbones

        return backbones

    def __call__(self, *given: object, **named: object) -> "Rows[BackboneSummary]":
        return self.__wrapped__(*given, **named)


sys.modules[__name__].__class__ = _CallablePackage
