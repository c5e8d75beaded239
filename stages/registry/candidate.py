"""candidate.json: which network this run hands to the registry. The same for everybody who has the same artifacts.

It is the output of the stage register that a team shares: dvc.lock leads through it to the version in any registry, which
has the tag ``network_sha256``. What one registry decides is in registry.json, which DVC does not keep.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.plumbing.files import CANDIDATE, file_sha256, write_json
from stages.registry.identity import network_sha256


class Candidate(BaseModel):
    """candidate.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_sha256: str  # of the exported file
    network_sha256: str  # of what computes the answers
    test_sha256: str  # of the test cases


def candidate(file: Path, cases_sha256: str) -> Candidate:
    """The candidate of an exported file, written to candidate.json if another one is there."""
    kept, sha256 = _kept(), file_sha256(file)
    if kept is not None and (kept.model_sha256, kept.test_sha256) == (sha256, cases_sha256):
        return kept
    made = Candidate(model_sha256=sha256, network_sha256=network_sha256(file), test_sha256=cases_sha256)
    write_json(CANDIDATE, made.model_dump())
    return made


def _kept() -> Candidate | None:
    """The candidate that is there; None where it is missing or damaged."""
    try:
        return Candidate.model_validate_json(CANDIDATE.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
