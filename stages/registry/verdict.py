"""The verdict on a version, in words, in registry.json and in tags."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mlflow.entities.model_registry import ModelVersion

from stages.evaluation import Evaluation
from stages.params import RegistryParams
from stages.registry.asking import how
from stages.registry.gate import Judgement, scores
from stages.registry.promotion import CHALLENGER, CHAMPION, WITHDRAWN
from stages.registry.record import Compared, Int8, Origin, RegistryRecord


def record(
    judgement: Judgement,
    model: str,
    version: int,
    champion: int | None,
    *,
    origin: Origin,
    measures: Mapping[str, float],
    int8: Int8 | None,
    limits: RegistryParams,
    test_uses: int | None = None,
) -> RegistryRecord:
    """What registry.json will say. ``champion`` is the champion after the judgement."""
    ours, metric, promoted = judgement.evidence.challenger, judgement.evidence.metric, champion == version
    reasons, before = _reasons(judgement, version, champion), judgement.evidence.champion
    score = metric.score(ours)
    others = {form.test_name: form.score(ours) for form in metric.forms if form != metric}
    return RegistryRecord(
        model=model,
        version=version,
        promoted=promoted,
        reason=_sentence(judgement, reasons, promoted, version),
        refusals=[] if promoted else reasons,
        waits=judgement.passed and judgement.asks is not None and not promoted,
        aliases=[CHALLENGER, CHAMPION] if promoted else [CHALLENGER],
        champion_before=before.version if before else None,
        champion_after=champion,
        metric=metric.name,
        score=score if math.isfinite(score) else None,
        latency_ms=ours.costs.get("latency_ms"),
        size_bytes=_size(ours),
        measures={name: value for name, value in {**measures, **others}.items() if math.isfinite(value)},
        compared=_compared(judgement),
        origin=origin,
        test_sha256=ours.cases_sha256,
        test_uses=test_uses,
        int8=int8,
        gate=settings(limits),
    )


def now(record: RegistryRecord, version: ModelVersion, champion: int | None) -> RegistryRecord:
    """The record of a version that was judged before, as it is now, under the present champion.

    Only a version that has lost its place since has another record: one that was rolled back or replaced.
    """
    if champion == record.version or not (record.promoted or WITHDRAWN in version.tags):
        return record
    if (reason := barred(version)) is None:
        reason = f"version {record.version} was champion before; {_present(champion)}"
    return record.model_copy(
        update={
            "promoted": False,
            "reason": f"not promoted: {reason}",
            "refusals": [reason],
            "aliases": [alias for alias in record.aliases if alias != CHAMPION],
            "champion_after": champion,
        }
    )


def barred(version: ModelVersion) -> str | None:
    """Why a version cannot become champion without a person's word: it was rolled back. None if it was not."""
    if WITHDRAWN not in version.tags:
        return None
    return f"version {version.version} was rolled back; {_again(int(version.version))}"


def standing(record: RegistryRecord, version: ModelVersion, champion: int | None) -> str:
    """What a version that was judged before is now: the end of a sentence that names the version."""
    if champion == record.version:
        return " (the champion)"
    if WITHDRAWN in version.tags:
        return f", which was rolled back ({_present(champion)}); {_again(record.version)}"
    if record.waits:
        return f", which has passed the gate ({_present(champion)}); {how(record.version)}"
    return f"{'' if record.promoted else ', which was refused'} ({_present(champion)})"


def _present(champion: int | None) -> str:
    return f"the champion is version {champion}" if champion else "there is no champion"


def _again(version: int) -> str:
    return f"`python -m stages.champion {version}` makes it champion again"


def settings(limits: RegistryParams) -> dict[str, float | None]:
    """The settings that decide whether a version is promoted, besides the metric, which the record names."""
    return limits.model_dump(exclude={"name", "metric", "max_int8_drop", "promote", "max_test_uses"})


def tags(record: RegistryRecord) -> dict[str, str]:
    """The verdict as tags of the version; "refused" is there only when the version was refused."""
    found = {
        "gate": "waits" if record.waits else "passed" if record.promoted else "refused",
        **{name: f"{value:.4f}" for name, value in record.measures.items()},
    }
    if record.refusals:
        found["refused"] = "; ".join(record.refusals)
    if record.compared:
        found["p_value"] = f"{record.compared.p_value:.3g}"
    if record.int8:
        found["int8"] = "included" if record.int8.included else f"refused: {record.int8.reason}"
    return found


def within(drop: float, limit: float) -> bool:
    """Whether a loss is at most the limit. Scores may be quotients of counts, and 0.8 - 0.7 > 0.1."""
    return drop <= limit + 1e-12


def _reasons(judgement: Judgement, version: int, champion: int | None) -> list[str]:
    """The gate's refusals, and what else kept the version from becoming champion or could help it."""
    reasons, before = list(judgement.refusals), judgement.evidence.champion
    if champion == version:
        if before is None:
            return reasons
        replaced = f"it cannot be compared with version {before.version}, which it replaced"
        return [replaced if reason == before.trouble else reason for reason in reasons]
    if not reasons and judgement.asks is not None:
        return []
    if not reasons:
        return [f"version {champion}, promoted at the same time, is at least as good"]
    if before is not None and before.evaluation is None:
        reasons.append(f"{how(version)} without comparison")
    return reasons


def _sentence(judgement: Judgement, reasons: list[str], promoted: bool, version: int) -> str:
    """The verdict in one sentence."""
    found = judgement.compared
    if not promoted and judgement.passed and judgement.asks is not None:
        scored = f" ({scores(judgement.evidence)})" if found else ""
        sentence = f"passes the gate{scored}, but {judgement.asks}; {how(version)}"
    elif not promoted:
        sentence = f"not promoted: {'; '.join(reasons)}"
    elif reasons:  # cut off after its promotion, or made champion by a person
        sentence = f"already champion, although {'; '.join(reasons)}"
    else:
        sentence = (
            f"champion: {scores(judgement.evidence)}" if found else "champion, because there was none before"
        )
    if found:
        noise = "more than noise" if found.exceeds_noise else "within the noise"
        sentence += f" (p = {found.p_value:.2g}, {noise})"
    return sentence


def _compared(judgement: Judgement) -> Compared | None:
    """The champion's numbers, and the comparison."""
    found, before, metric = judgement.compared, judgement.evidence.champion, judgement.evidence.metric
    if found is None or before is None or before.evaluation is None:
        return None
    theirs = before.evaluation
    counts = ("only_challenger_right", "only_champion_right")
    if metric.outcomes == "numbers":
        counts = ("challenger_better", "champion_better")
    others = {form.test_name: form.score(theirs) for form in metric.forms if form != metric}
    return Compared.model_validate(
        {
            "score": metric.score(theirs),
            "latency_ms": theirs.costs.get("latency_ms"),
            "size_bytes": _size(theirs),
            "gain": found.gain,
            **dict(zip(counts, (found.challenger_better, found.champion_better), strict=True)),
            "p_value": found.p_value,
            "exceeds_noise": found.exceeds_noise,
            **others,
        }
    )


def _size(evaluation: Evaluation) -> int | None:
    size = evaluation.costs.get("size_bytes")
    return None if size is None else int(size)
