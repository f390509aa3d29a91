import pathlib

import pytest

from tests.launch.reports.real_runs import make_runs


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder of real runs; tests copy what they change."""
    return make_runs(tmp_path_factory.mktemp("reported"))
