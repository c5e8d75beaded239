from __future__ import annotations

import csv
from pathlib import Path

import torch

from benchmarks import latency_predictors
from models.images.notations import arch_str
from models.images.spaces import search_space
from models.search.latency.encoding import Encoding
from models.search.random_cells import random_cells

DEVICES = ("sum", "optimizing", "another")


def write(path: Path, count: int) -> None:
    """Three made-up devices: one computes every edge, one leaves out what leads to nothing, one is twice the first."""
    space = search_space("nasbench201")
    source = random_cells(space, torch.Generator().manual_seed(0))
    genotypes = [next(source) for _ in range(count)]
    encoding = Encoding(space)
    codes = encoding.encode_all(genotypes)
    costs = torch.rand(6 * 4, generator=torch.Generator().manual_seed(1))
    every, live = encoding.without_paths(codes) @ costs, codes[:, : 6 * 4] @ costs
    columns = {"sum": 1 + every, "optimizing": 1 + live, "another": 2 + 2 * every}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "arch_str", *DEVICES])
        for index, genotype in enumerate(genotypes):
            writer.writerow([index, arch_str(genotype), *(float(ms[index]) for ms in columns.values())])


def test_the_report_compares_kinds_on_every_device(tmp_path: Path) -> None:
    table, result = tmp_path / "table.csv", tmp_path / "result.md"
    write(table, 260)
    words = [str(table), "--seeds", "2", "--sizes", "50", "90", "--few", "30", "--held-out", "100"]
    assert latency_predictors.main([*words, "--output", str(result)]) == 0
    text = result.read_text()
    assert "over 2 draw(s)" in text.replace("\n", " ")
    for title in ("## 50 networks", "## 90 networks", "## A new device: 30 networks"):
        section = text.split(title)[1].split("\n## ")[0]
        rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| ")]
        assert [row[0].strip("| ") for row in rows[1:]] == list(DEVICES)
        if "new device" in title:
            continue
        places = [name.strip("| ") for name in rows[0]]
        found = {
            row[0].strip("| "): dict(zip(places, (part.strip("| ") for part in row), strict=True))
            for row in rows[1:]
        }
        for device in DEVICES:
            assert float(found[device]["chosen"].split()[0]) > 0.97
        plain, known = (
            found["optimizing"][name].split()[0] for name in (latency_predictors.TABLE, "additive")
        )
        assert float(plain) < float(known) - 0.005, "knowledge of paths matters where the runtime has it"
