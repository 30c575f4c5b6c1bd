"""The runs that all tests of the report share."""

import pytest
from runs import make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("reported"))
