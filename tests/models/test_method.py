from __future__ import annotations

import re

import pytest

from tests.conftest import REPOSITORY

NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", (REPOSITORY / "docs/method.md").read_text())))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_what_the_method_page_points_to_is_there(file: str, name: str) -> None:
    source = (REPOSITORY / file).read_text()
    assert re.search(rf"^(def|class) {name}\b", source, re.MULTILINE), f"{file} has no {name}"


def test_every_known_defect_has_a_test() -> None:
    page = (REPOSITORY / "docs/method.md").read_text()
    for defect in range(1, 11):
        (item,) = re.findall(rf"^{defect}\. .*\n(?: +.*\n)*", page, re.MULTILINE)
        assert "tests/models/test_" in item
