"""A network that is registered already: whether the decision about it holds, and what is said about it now.

The tag ``report`` of a version holds registry.json as it was when the version was judged. Since then the version may have
been rolled back or replaced. registry.json and the terminal say what it is now.
"""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from stages.errors import UserError
from stages.evaluation import Metric
from stages.params import RegistryParams
from stages.plumbing.files import CARD, REGISTRY
from stages.plumbing.tracking import reported
from stages.records import Int8 as ExportedInt8
from stages.registry import verdict, versions
from stages.registry.promotion import CHAMPION, REPORT, WITHDRAWN, find_alias
from stages.registry.record import Int8, RegistryRecord


def decision_holds(
    mlflow: MlflowClient,
    version: ModelVersion,
    metric: Metric,
    limits: RegistryParams,
    cases_sha256: str,
    *,
    asks: bool,
) -> bool:
    """Whether the decision about this version still holds, given the hash of today's test cases.

    A rollback holds until a person revokes it, and a promotion as long as the test cases are the same. A version that
    waits for a person goes on waiting, unless this run need not ask (``asks``).
    """
    if REPORT not in version.tags:
        return False
    if WITHDRAWN in version.tags:
        return True
    record = record_of(version)
    if record.test_sha256 != cases_sha256:
        return False
    if record.promoted:
        return True
    if record.waits and not asks:
        return False
    same_gate = record.metric == metric.name and record.gate == verdict.settings(limits)
    return same_gate and record.champion_after == _champion(mlflow, version)


def record_of(version: ModelVersion) -> RegistryRecord:
    """The record in the version's tag: registry.json as it was when the version was judged."""
    try:
        return RegistryRecord.parse(version.tags[REPORT])
    except ValueError:
        raise UserError(
            f"the tag {REPORT} of {version.name} version {version.version} is damaged; delete the tag and run"
            " `dvc repro`"
        ) from None


def restore(mlflow: MlflowClient, version: ModelVersion) -> None:
    """Writes registry.json as it is now, and the card if it is missing here or belongs to another version."""
    record, here = verdict.now(record_of(version), version, _champion(mlflow, version)), _kept()
    if here is None or here.version != record.version:
        CARD.unlink(missing_ok=True)
    if here != record:
        record.write(REGISTRY)
    if not CARD.exists():
        with reported():
            versions.download(version, CARD.name, CARD.parent)


def tell(mlflow: MlflowClient, version: ModelVersion, file: str) -> None:
    """Prints that the network was registered before, and what the version is now."""
    name, number = version.name, version.version
    standing = verdict.standing(record_of(version), version, _champion(mlflow, version))
    print(f"register: {file} is already registered as {name} version {number}{standing}")


def tell_int8(version: ModelVersion, exported: ExportedInt8 | None, limits: RegistryParams) -> None:
    """Prints a line when the version's int8 file, or the lack of one, is not what the settings ask for now."""
    int8, number = record_of(version).int8, version.version
    if int8 is None:
        return
    again = "delete the version and run `dvc repro` to register it again"
    if int8.included != verdict.within(int8.drop, limits.max_int8_drop):
        print(
            f"register: registry.max_int8_drop is now {limits.max_int8_drop:g}, but version {number} was"
            f" registered {'with' if int8.included else 'without'} int8 under another limit; {again}"
        )
    elif int8.included and exported is not None and exported.sha256 != int8.sha256:
        print(f"register: version {number} keeps the {int8.file} that it was registered with; {again}")


def lacks(version: ModelVersion, exported: ExportedInt8 | None) -> bool:
    """Whether this export has an int8 file that the version neither includes nor has refused."""
    int8: Int8 | None = record_of(version).int8
    if exported is None or int8 is None:
        return exported is not None
    return not int8.included and int8.sha256 != exported.sha256


def _champion(mlflow: MlflowClient, version: ModelVersion) -> int | None:
    """The number of the champion of the version's model."""
    with reported():
        champion = find_alias(mlflow, version.name, CHAMPION)
    return int(champion.version) if champion else None


def _kept() -> RegistryRecord | None:
    """This workspace's registry.json; None when it is missing or damaged."""
    try:
        return RegistryRecord.read(REGISTRY)
    except UserError:
        return None
