"""The page of what was found and how fast circuits are."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks import _circuits_speed as speed

HEAD = """# Circuits: what is found, and how fast
Written by `python -m benchmarks.circuits`. One thread.
"""


def page(results: dict[str, Any]) -> str:
    parts = [HEAD]
    if "found" in results:
        parts.append(_found(results["found"]))
    if "speed" in results:
        parts.append(_speed(results["speed"]))
    return "\n".join(parts)


def _found(cases: dict[str, Sequence[dict[str, Any]]]) -> str:
    lines = [
        "## Found",
        "Scores are fidelities, cut ratios or energies in hartree. Seconds are processor time of one search and tuning.",
        "",
        "| case | seeds | most likely circuit, mean | tuned: mean | lowest | highest | seconds | a circuit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in cases.items():
        if not rows:
            continue
        tuned = [row["tuned"] for row in rows]
        searched = statistics.mean(row["searched"] for row in rows)
        seconds = statistics.mean(row["search_seconds"] + row["tuning_seconds"] for row in rows)
        lines.append(
            f"| {name} | {len(rows)} | {searched:.4f} | {statistics.mean(tuned):.4f} | {min(tuned):.4f} |"
            f" {max(tuned):.4f} | {seconds:.1f} | `{' '.join(rows[0]['operations'])}` |"
        )
    return "\n".join(lines) + "\n"


def _speed(measured: dict[str, Any]) -> str:
    ratio = measured["pennylane"] / measured["ours"]
    lines = [
        "## Speed",
        f"{measured['machine']}. The fastest of a few repetitions, forward and backward.",
        "",
        f"- {speed.CIRCUITS} circuits of {speed.QUBITS} qubits and {speed.PLACES} places: {measured['shared_angles']:.3f} s where the"
        f" angles belong to places and operations, as in a search; {measured['own_angles']:.3f} s where every circuit has angles"
        " of its own.",
        f"- {measured['circuits']} of the circuits with angles of their own: {1e3 * measured['ours']:.1f} ms;"
        f" PennyLane's default.qubit: {1e3 * measured['pennylane']:.0f} ms, {ratio:.0f} times as long.",
        "",
        "Microseconds per circuit with angles of its own:",
        "",
        f"| qubits | {' | '.join(f'{batch} circuits' for batch in speed.BATCHES)} |",
        "|---" * (1 + len(speed.BATCHES)) + "|",
    ]
    for qubits, seconds in measured["table"].items():
        cells = (
            "" if value is None else f"{1e6 * value / batch:.1f}"
            for value, batch in zip(seconds, speed.BATCHES, strict=True)
        )
        lines.append(f"| {qubits} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
