"""What the README names is there."""

from __future__ import annotations

import re

from tests.readme.user import NOT_RUN, ROOT, blocks, commands


def test_no_excuse_outlives_its_command() -> None:
    excused = commands("none")
    for start in NOT_RUN:
        assert any(command.startswith(start) for command in excused), f"the README has no {start!r} any more"


def test_the_readmes_files_are_there() -> None:
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / target).exists(), target
    (tree,) = blocks("text")
    for name in re.findall(r"^(\S+?)/? {2,}", tree, re.M):
        assert (ROOT / name).exists(), name
