"""What the tests of the hosts share."""

from __future__ import annotations

import pytest
from helpers.hosts import PYTHON_HOSTS, Make


@pytest.fixture(params=PYTHON_HOSTS)
def make(request: pytest.FixtureRequest) -> Make:
    """What makes a solver of a file: once the hook's, once the drop-in's."""
    return PYTHON_HOSTS[request.param]
