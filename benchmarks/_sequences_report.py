"""The page of how much growing saves, and how fast the supercells are."""

from __future__ import annotations

import statistics
from typing import Any

HEAD = """# Sequences: what growing saves, and how fast a search step is
Written by `python -m benchmarks.sequences`. One thread; seconds are processor time.
"""


def page(results: dict[str, Any]) -> str:
    parts = [HEAD]
    if "growth" in results:
        parts.append(_growth(results["growth"]))
    if "speed" in results:
        parts.append(_speed(results["speed"]))
    return "\n".join(parts)


def _growth(found: dict[str, Any]) -> str:
    lines = [
        "## Growing",
        "BasicMotions, next step of six channels: a two-input cell with 24 units, 20 epochs, batches of 40 chunks of 33 steps, Adam at 0.003. Fixed:",
        "four nodes from the start. Grown: two nodes, a third after 4 epochs and a fourth after 8. Losses are mean squared errors",
        f"on the test series in standardized units, where repeating the last step has {found['persistence']:.3f}. A ratio below 1",
        f"is in favour of growing. {found['machine']}.",
        "",
        "| strategy | seeds | loss, fixed | loss, grown | ratio | ratio per seed | seconds, fixed | seconds, grown | ratio | per seed |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for strategy, rows in found.items():
        if not isinstance(rows, list) or not rows:
            continue
        means = {
            (kind, key): statistics.mean(row[kind][key] for row in rows)
            for kind in ("fixed", "grown")
            for key in ("loss", "seconds")
        }
        ratios = {key: [row["grown"][key] / row["fixed"][key] for row in rows] for key in ("loss", "seconds")}
        lines.append(
            f"| {strategy} | {len(rows)} "
            + "".join(
                f"| {means['fixed', key]:.{digits}f} | {means['grown', key]:.{digits}f} |"
                f" {means['grown', key] / means['fixed', key]:.3f} | {min(ratios[key]):.3f} to {max(ratios[key]):.3f} "
                for key, digits in (("loss", 4), ("seconds", 1))
            )
            + "|"
        )
    return "\n".join([*lines, ""])


def _speed(measured: dict[str, Any]) -> str:
    lines = [
        "## Speed of a step",
        "Forward and backward pass of a supercell with four nodes and five operations, batch 64, against a plain loop over",
        f"nodes, edges and operations. {measured['machine']}; load {measured['load']}.",
        "",
        "| space | hidden | steps | plain, ms | batched, ms | times as fast |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['family']} | {row['hidden']} | {row['steps']} | {1e3 * row['plain']:.0f} | {1e3 * row['batched']:.0f}"
        f" | {row['plain'] / row['batched']:.1f} |"
        for row in measured["rows"]
    ]
    return "\n".join([*lines, ""])
