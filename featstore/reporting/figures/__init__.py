"""Plotting functions: plain numbers in, a `Picture` out; any run, report or notebook may use them.

``from featstore.reporting import figures`` loads nothing; matplotlib comes with the first picture. ``__init__.pyi``
says where each function lives.
"""

import lazy_loader as _lazy_loader

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)
