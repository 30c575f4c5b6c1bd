"""Libraries that take seconds to import, imported when a test asks for something of them.

pytest imports every file of tests in every worker. The one that runs no network need not wait for Keras.
"""

from importlib import import_module


class Library:
    """A module by name."""

    def __init__(self, name):
        self._name = name

    def __getattr__(self, attribute):
        if attribute.startswith(("_", "pytest")) and attribute != "__version__":
            raise AttributeError(attribute)  # pytest looks at whatever it finds in a file
        return getattr(import_module(self._name), attribute)
