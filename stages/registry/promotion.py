"""Aliases of the registered model: which version is champion, and how another one becomes champion.

A change never leaves two champions or none. ``champion`` is one row in the registry's database, so it always
names exactly one version. All other writes are ordered around the write to this row, so that a process that
ends anywhere leaves the old champion or the new one, complete:

    tag promoted_over    on the new version, which has passed the gate: the version that it has beaten
    previous_champion    alias, moved to the version that was beaten
    champion             alias, moved to the new version

Two promotions at once: where the registry is a local SQLite file, a lock file beside it makes them take
turns. On a server each promotion looks again after its move. It sees the other's ``promoted_over``, which
was written before the other's move, and both then leave the better of the two. The tag ``report`` says that
a version's promotion has ended.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterator
from typing import Protocol, TypeVar

from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from sqlalchemy.engine import make_url

from stages.errors import MachineError, UserError
from stages.evaluation import Metric
from stages.plumbing.tracking import tracking_uri

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous_champion", "challenger"
REPORT, PROMOTED_OVER, WITHDRAWN = "report", "promoted_over", "withdrawn"
SOUND = "sound"  # tag: whether nothing but the comparison with a champion spoke against the version, and it was no experiment
NONE = "none"  # as the value of PROMOTED_OVER: there was no champion
_PATIENCE = 600.0  # seconds to wait for another promotion in the same SQLite file


class Verdict(Protocol):
    """What a judge decided."""

    @property
    def accepted(self) -> bool: ...


Judgement = TypeVar("Judgement", bound=Verdict)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Where the registry is a local SQLite file: keeps other promotions out while the block runs."""
    uri = tracking_uri()
    database = make_url(uri).database if uri.startswith("sqlite:") else None
    if not database or database == ":memory:":
        yield
        return
    try:
        with FileLock(f"{database}.promotion.lock", timeout=_PATIENCE):
            yield
    except Timeout:
        raise MachineError(
            f"another promotion has held {database}.promotion.lock for more than {_PATIENCE:.0f} s; wait for that"
            " process or end it"
        ) from None


def find_alias(mlflow: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version an alias points to, or None."""
    try:
        return mlflow.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def promote(
    mlflow: MlflowClient,
    name: str,
    version: str,
    judge: Callable[[ModelVersion | None], Judgement],
    metric: Metric,
) -> tuple[Judgement, int | None]:
    """Makes the version champion if ``judge`` accepts it over the present champion.

    Returns the judgement and the champion afterwards. The champion may be another version although this one
    was accepted: a better one that was promoted at the same time. Before the call the version must have the
    tags of its score (``score_tag``) and test_sha256, and must not have the tag report. May be called again
    after a crash at any point.
    """
    while True:
        past = _past(mlflow, name)
        champion = find_alias(mlflow, name, CHAMPION)
        if champion is not None and str(champion.version) == version:  # cut off after its promotion
            return judge(_beaten(mlflow, name, version)), int(version)
        judgement = judge(champion)
        if not judgement.accepted:
            return judgement, _number(champion)
        over = str(champion.version) if champion else NONE
        mlflow.set_model_version_tag(name, version, PROMOTED_OVER, over)
        if _number(find_alias(mlflow, name, CHAMPION)) != _number(champion):
            continue  # the champion has changed since it was read
        if champion is not None:
            mlflow.set_registered_model_alias(name, PREVIOUS, over)
        if (best := _settle(mlflow, name, version, over, past, metric)) is None:
            continue
        return judgement, _number(best)


def succeed(
    mlflow: MlflowClient, name: str, cases: str, metric: Metric, newcomer: str | None = None
) -> str | None:
    """Where no version is champion any more, because it was deleted: makes another one champion.

    Otherwise the next newcomer would be champion without a comparison. The heir is previous_champion, or else the
    best of the sound versions by their scores on the test cases with the hash ``cases``, or else the newest of those
    that were champion. The ``newcomer`` and versions that a person has rolled back take no part. Returns a sentence
    about what was done; None where there is a champion, or no heir.
    """
    if find_alias(mlflow, name, CHAMPION) is not None:
        return None
    before = find_alias(mlflow, name, PREVIOUS)
    heir, title = before, "which was champion before it"
    if before is None or str(before.version) == newcomer:
        heir, title = _best_left(mlflow, name, cases, metric, newcomer), "the best of those that are left"
    if heir is None:
        return None
    mlflow.set_registered_model_alias(name, CHAMPION, str(heir.version))
    if heir is before:
        _set_previous(mlflow, name, heir)
    return f"the champion of {name} was deleted; its heir is version {heir.version}, {title}"


def _best_left(
    mlflow: MlflowClient, name: str, cases: str, metric: Metric, newcomer: str | None
) -> ModelVersion | None:
    left = [
        version
        for version in mlflow.search_model_versions(f"name = '{name}'")
        if str(version.version) != newcomer and REPORT in version.tags and WITHDRAWN not in version.tags
    ]
    # Versions from before there was the tag count when they have passed the gate.
    sound = [
        one
        for one in left
        if one.tags.get(SOUND) == "yes" or (SOUND not in one.tags and PROMOTED_OVER in one.tags)
    ]
    if same := [one for one in sound if one.tags.get("test_sha256") == cases]:
        return max(same, key=lambda version: _rank(version, metric))
    return max(
        (one for one in left if PROMOTED_OVER in one.tags), key=lambda one: int(one.version), default=None
    )


def score_tag(metric: Metric) -> str:
    """The tag that holds a version's score on the test cases, such as test_accuracy."""
    return metric.test_name


def _past(mlflow: MlflowClient, name: str) -> set[str]:
    """The versions whose promotion has ended and that no unfinished promotion can have overwritten.

    An unfinished promotion may still overwrite what was promoted since it read the champion: versions
    promoted over the same champion, and versions promoted over one of those.
    """
    versions = {
        str(version.version): version.tags for version in mlflow.search_model_versions(f"name = '{name}'")
    }
    over = {number: tags[PROMOTED_OVER] for number, tags in versions.items() if PROMOTED_OVER in tags}
    reach = {base for number, base in over.items() if REPORT not in versions[number]}
    while more := {number for number, base in over.items() if base in reach} - reach:
        reach |= more
    return {number for number, tags in versions.items() if REPORT in tags and over.get(number) not in reach}


def _settle(
    mlflow: MlflowClient, name: str, version: str, over: str, past: Collection[str], metric: Metric
) -> ModelVersion | None:
    """Makes the best of the versions that passed the gate on the same test cases champion, and returns it.

    Looks again after its move, until the best is champion. Versions of the ``past`` take no part. Returns
    None when the champion is none of these versions, because a person has moved the alias meanwhile.
    """
    cases = mlflow.get_model_version(name, version).tags["test_sha256"]
    while True:
        rivals = [
            rival
            for rival in mlflow.search_model_versions(f"name = '{name}'")
            if PROMOTED_OVER in rival.tags
            and rival.tags.get("test_sha256") == cases
            and str(rival.version) not in past
        ]
        best = max(rivals, key=lambda rival: _rank(rival, metric))
        champion = _number(find_alias(mlflow, name, CHAMPION))
        if champion == _number(best):
            return best
        if champion is not None and str(champion) not in {over, *(str(rival.version) for rival in rivals)}:
            return None
        mlflow.set_registered_model_alias(name, CHAMPION, str(best.version))


def _rank(version: ModelVersion, metric: Metric) -> tuple[float, int]:
    """The better score is higher; among equals, the version that was there first.

    Versions from before a form of the metric existed have no such score, and are the lowest.
    """
    score = version.tags.get(score_tag(metric))
    return -math.inf if score is None else metric.gain(float(score), 0.0), -int(version.version)


def choose(mlflow: MlflowClient, name: str, version: str) -> str:
    """Makes a version champion because a person says so, and returns a sentence about what was done.

    Raises UserError when there is no such version.
    """
    try:
        chosen = mlflow.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise UserError(f"{name} has no version {version}; `make ui` shows its versions") from None
    champion = find_alias(mlflow, name, CHAMPION)
    if champion is not None and champion.version == chosen.version:
        return f"version {version} of {name} is already champion"
    mlflow.set_model_version_tag(name, version, PROMOTED_OVER, str(champion.version) if champion else NONE)
    mlflow.delete_model_version_tag(name, version, WITHDRAWN)
    if champion is not None:
        mlflow.set_registered_model_alias(name, PREVIOUS, str(champion.version))
    mlflow.set_registered_model_alias(name, CHAMPION, version)
    before = f"instead of version {champion.version}" if champion else "and there was none before"
    return f"version {version} of {name} is now champion, {before}"


def roll_back(mlflow: MlflowClient, name: str) -> str:
    """Moves champion back to previous_champion, and previous_champion to the version before that one.

    Returns a sentence about what was done.
    Raises UserError when there is nothing to go back to.
    """
    champion, previous = find_alias(mlflow, name, CHAMPION), find_alias(mlflow, name, PREVIOUS)
    if champion is None:
        raise UserError(f"{name} has no champion to roll back; `dvc repro` registers one")
    if previous is not None and previous.version == champion.version:
        # A promotion ended between its two writes of aliases, so the alias has lost what this champion was promoted over.
        previous = _beaten(mlflow, name, str(champion.version))
    if previous is None:
        raise UserError(
            f"{name} has no version to roll back to: none was champion before version {champion.version};"
            " `python -m stages.champion VERSION` makes any version champion"
        )
    mlflow.set_model_version_tag(name, str(champion.version), WITHDRAWN, f"rolled back to {previous.version}")
    mlflow.delete_model_version_tag(name, str(champion.version), PROMOTED_OVER)
    mlflow.set_registered_model_alias(name, CHAMPION, str(previous.version))
    _set_previous(mlflow, name, previous)
    return f"champion of {name} is version {previous.version} again, instead of version {champion.version}"


def _set_previous(mlflow: MlflowClient, name: str, champion: ModelVersion) -> None:
    """Moves previous_champion to the version that the champion was promoted over."""
    if (before := _beaten(mlflow, name, str(champion.version))) is not None:
        mlflow.set_registered_model_alias(name, PREVIOUS, str(before.version))
    else:
        mlflow.delete_registered_model_alias(name, PREVIOUS)


def _beaten(mlflow: MlflowClient, name: str, version: str) -> ModelVersion | None:
    """The version that this one was promoted over, if there was one and it still exists."""
    over = mlflow.get_model_version(name, version).tags.get(PROMOTED_OVER, NONE)
    if over == NONE:
        return None
    try:
        return mlflow.get_model_version(name, over)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _number(version: ModelVersion | None) -> int | None:
    """The version's number, or None without a version."""
    return None if version is None else int(version.version)
