"""featstore: extract once, fuse many times.

The public functions carry the names of the commands; what they take, return and raise is here too. Importing this
package loads nothing heavy: ``__init__.pyi`` says where each name lives, and that module is imported when the name
is first asked for.
"""

import lazy_loader as _lazy_loader

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)
