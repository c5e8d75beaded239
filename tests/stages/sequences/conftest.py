from __future__ import annotations

from collections.abc import Iterator

import pytest

from stages.sequences.params import Params
from tests.stages.sequences.projects import project, trained


@pytest.fixture(scope="module", params=["series", "text"])
def retrained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Params]:
    """The settings of a project whose network has been retrained. Do not change its files."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        params = project(request.param)
        trained(params)
        yield params
