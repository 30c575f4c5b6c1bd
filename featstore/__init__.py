"""featstore: extract once, fuse many times.

The public functions carry the names of the commands; what they take, return and raise is here too. Importing this
package loads nothing heavy: ``__init__.pyi`` says where each name lives, and that module is imported when the name
is first asked for.
"""

import lazy_loader as _lazy_loader

_public, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for; the version is that of the installed package.

    `backbones` is the package of this name, which can be called: whatever is imported from it makes it an attribute.
    """
    if name == "__version__":
        from importlib.metadata import version

        return version("featstore")
    if name == "backbones":
        from importlib import import_module

        return import_module(".backbones", __name__)
    return _public(name)
