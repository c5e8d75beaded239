"""Packs a kit: a file that measures networks of the search space on another device (``python KIT.zip``)."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.search.spaces import SearchSpace
from stages.latencies import UNIT
from stages.measuring import bench
from stages.measuring.sampling import Plan, drawn_again

if TYPE_CHECKING:
    from stages.contracts import Architectures, Latency
    from stages.params import Params

_WHEN = (1980, 1, 1, 0, 0, 0)  # of the files in the kit, so that equal kits are equal bytes


def pack(
    path: Path,
    params: Params,
    part: Latency,
    space: SearchSpace,
    architectures: Architectures,
    count: Callable[[str, int, int], None],
) -> int:
    """Writes the kit and returns how many networks it has."""
    config = params.latency
    genotypes = Plan(space, config.seed).first(config.samples)
    new = path.with_name(f"{path.name}.new")
    with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for number, genotype in enumerate(genotypes):
            count("networks", number, len(genotypes))
            _write(packed, f"networks/{number}.onnx", part.network(params, genotype))
        again = drawn_again(range(len(genotypes)), config.repeated, config.seed)
        manifest = {
            **statements(params, part, space),
            "opset": part.opset(params),
            "inputs": part.inputs(params),
            **{name: getattr(config, name) for name in ("threads", "repeats", "warmup")},
            "networks": [
                {"file": f"{number}.onnx", "genotype": architectures.genotype_json(genotypes[number])}
                for number in (*range(len(genotypes)), *again)
            ],
        }
        manifest["size"] = json.dumps(manifest["size"])
        manifest["kit"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]
        _write(packed, "manifest.json", json.dumps(manifest).encode())
        _write(packed, "__main__.py", Path(bench.__file__).read_bytes())
    new.replace(path)
    return len(genotypes)


def statements(params: Params, part: Latency, space: SearchSpace) -> Mapping[str, Any]:
    """What a table is about, besides the device."""
    config = params.latency
    return {
        "space": space.name,
        "size": part.size(params),
        "precision": config.precision,
        "batch_size": config.batch_size,
        "unit": UNIT,
    }


def _write(packed: zipfile.ZipFile, name: str, content: bytes) -> None:
    packed.writestr(zipfile.ZipInfo(name, _WHEN), content, zipfile.ZIP_DEFLATED)
