"""What a user without rights meets, although the tests may be run by root, who may read everything."""

from __future__ import annotations

import codecs
import contextlib
import os

ROOT_USER = os.geteuid() == 0
NOBODY = 65534


@contextlib.contextmanager
def without_rights():
    """For a while this process is nobody; nothing to do where it is no root."""
    codecs.lookup("ascii")  # loaded by root, where nobody may not look into the library
    if ROOT_USER:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if ROOT_USER:
            os.seteuid(0)


@contextlib.contextmanager
def with_rights():
    """Back to root inside of `without_rights`."""
    if ROOT_USER:
        os.seteuid(0)
    try:
        yield
    finally:
        if ROOT_USER:
            os.seteuid(NOBODY)
