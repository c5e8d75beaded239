"""How often a test set has been used to choose: the number of networks that were judged on it.

The best of many networks owes a part of its score on the same cases to chance, so the number belongs beside the score. It is
kept by the registry, whose champion was chosen: a tag of the registered model per test set holds the networks, each once,
however often it was judged. The tag survives the deletion of versions. A name that two registrations on a server add at the
same moment may be lost; the next registration adds it again from the version.
"""

from __future__ import annotations

from mlflow import MlflowClient

from stages.evaluation import Metric
from stages.plumbing.limits import VERSION_TAG

_DIGITS = 12  # of the hash of a network, and of that of the test cases


def tag(cases_sha256: str) -> str:
    """The tag of the registered model that holds the networks judged on these test cases."""
    return f"judged_on_{cases_sha256[:_DIGITS]}"


def count(mlflow: MlflowClient, name: str, network_sha256: str, cases_sha256: str) -> int:
    """Notes that the network is judged on these test cases; returns how many have been, this one included."""
    judged = {network_sha256[:_DIGITS]}
    judged.update(mlflow.get_registered_model(name).tags.get(tag(cases_sha256), "").split())
    for version in mlflow.search_model_versions(f"name = '{name}'"):  # also those of before there was the tag
        if version.tags.get("test_sha256") == cases_sha256 and (known := version.tags.get("network_sha256")):
            judged.add(known[:_DIGITS])
    most = VERSION_TAG // (_DIGITS + 1)  # a count that large says enough
    mlflow.set_registered_model_tag(name, tag(cases_sha256), " ".join(sorted(judged)[:most]))
    return len(judged)


def notice(networks: int, limit: int | None, metric: Metric) -> str | None:
    """Asks for fresh test cases, where more networks than registry.max_test_uses have been judged on these."""
    if limit is None or networks <= limit:
        return None
    return (
        f"{networks} networks have been judged on these test {metric.case}s, more than registry.max_test_uses ({limit}),"
        f" so the best score owes more and more to chance; take fresh test {metric.case}s, which no run has seen"
    )
