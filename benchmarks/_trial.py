"""One run of ``benchmarks.stability``, ``studies`` or ``evidence``: what prepare, search and retrain do, at a small size,
in memory."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks import _convergence, _machine
from benchmarks._collapse import collapsed, plain_edges
from benchmarks._convergence import convergence
from models.images.batches import Preprocess, Split
from models.images.deploy import Deployed
from models.images.genotype import to_json
from models.search.program import Found, Search
from models.training.events import Event, Notice
from models.training.loop import run
from stages.images import prepare, training
from stages.images.params import DataParams, Params
from stages.images.testing.cases import in_batches
from stages.images.testing.with_torch import with_torch
from stages.images.training.inputs import Images, device
from stages.plumbing.checkpoint import key
from stages.plumbing.code import code_of
from stages.plumbing.files import sha256_of

Run = Mapping[str, Any]  # the results of one job, as in the JSON lines

OWN_CODE = (Path(__file__), Path(_convergence.__file__))
CURVES = (  # the columns of the history that are kept, besides entropy_ and skip_connects_ of every cell type
    "valid_accuracy",
    "hessian_eigenvalue",
    "tabulated_accuracy",
    "radius",
    "movement",
    "bandwidth",
    "effective_sample_size",
    "kernel_spread",
)


@dataclass(frozen=True)
class Job:
    """One search and the training that follows. Another process carries it out, so it can be pickled."""

    case: str
    params: Params
    crop: bool
    retrained: bool
    iterates: bool = False  # whether the convergence of the mean shift is measured, too

    @property
    def seed(self) -> int:
        return self.params.search.seed

    @property
    def key(self) -> str:
        """The hash of everything that the result depends on."""
        table = self.params.search.benchmark_table
        inputs = {
            "crop": str(self.crop),
            "retrained": str(self.retrained),
            "iterates": str(self.iterates),
            "table": "" if table is None else sha256_of(Path(table).expanduser()),
            # The key covers the code that retrain imports, which does not include prepare.
            "code": sha256_of(*OWN_CODE, *code_of("prepare", "images")),
        }
        sections = {name: self.params.section(name).active() for name in ("data", "search", "retrain")}
        return key("retrain", "images", sections, inputs)

    @property
    def settings(self) -> str:
        """The hash of the settings alone, without code and places of files."""
        sections = {name: dict(self.params.section(name).active()) for name in ("data", "search", "retrain")}
        sections["data"]["root"] = Path(self.params.data.root).name
        sections["search"].pop("benchmark_table", None)
        content = json.dumps(
            [self.case, self.crop, self.retrained, self.iterates, sections], sort_keys=True, default=str
        )
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def __call__(self) -> Run:
        return carry_out(self)


@dataclass(frozen=True)
class Uncropped(Images):
    """The same images without the random crop, to see whether the crop matters."""

    def preprocess(self, *, cutout: int, device: torch.device) -> Preprocess:
        return replace(super().preprocess(cutout=cutout, device=device), padding=0)


def read(params: DataParams, *, crop: bool = True) -> tuple[Images, Split]:
    """What the stage prepare would have written, in memory, and the test split."""
    with TemporaryDirectory() as folder:
        made = Path(folder, "data")
        made.mkdir()
        card = prepare.prepare_in(Path(folder), params, made)

        def array(name: str) -> torch.Tensor:
            return torch.from_numpy(np.load(made / f"{name}.npy"))

        train_split, val, test = (
            Split(array(f"{name}_images"), array(f"{name}_labels")) for name in ("train", "val", "test")
        )
    return (Images if crop else Uncropped)(train_split, val, card), test


def carry_out(job: Job) -> Run:
    """Search, discretization gap, eigenvalue, and the accuracy of the genotype."""
    start, processor = time.perf_counter(), time.process_time()
    data, test = read(job.params.data, crop=job.crop)
    notices: list[str] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Notice):
            notices.append(event.message)

    search = training.search_on(data, job.params)
    result = run(search, on_event=on_event)
    searched = time.perf_counter() - start
    return {
        "key": job.key,
        "case": job.case,
        "seed": job.seed,
        **result.summary,
        "accuracy": accuracy(job, data, test, result),
        "plain_edges": plain_edges(result.genotype),
        "collapsed": collapsed(result.genotype),
        "genotype": to_json(result.genotype),
        "notices": notices,
        "search_seconds": round(searched, 1),
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - processor, 1),
        "date": _machine.today(),
        "machine": _machine.hardware(device()),
        "curves": curves(result),
        **around(job, search, result),
    }


def around(job: Job, search: Search, result: Found) -> dict[str, Any]:
    """The landscape and the iterates of the mean shift, if they are wanted."""
    measured: dict[str, Any] = {}
    if (found := result.landscape) is not None:
        heights = [[_short(loss) for loss in row] for row in found.losses.tolist()]
        measured["landscape"] = {"offsets": found.offsets.tolist(), "losses": heights}
        measured["rise"] = found.rise
    if job.iterates:
        measured["convergence"] = convergence(search, result, job.params.search.mean_shift, job.seed)
    return measured


def accuracy(job: Job, data: Images, test: Split, result: Found) -> float | None:
    """The tabulated accuracy of the genotype, or its test accuracy after a short training, in [0, 1].

    None if there is no table and no training was asked for.
    """
    if (tabulated := result.history[-1].get("tabulated_accuracy")) is not None:
        return tabulated / 100
    if not job.retrained:
        return None
    program = training.retrain_on(data, job.params, result.genotype)
    run(program)  # leaves the best weights in the network
    deployed = Deployed(program.network.cpu(), data.card.mean, data.card.std).eval()
    probabilities = in_batches(with_torch(deployed), test.images.numpy())
    return float((probabilities.argmax(axis=1) == test.labels.numpy()).mean())


def curves(result: Found) -> dict[str, list[float | None]]:
    """The columns of the history that are kept, to five significant digits."""
    kept = [
        name
        for name in result.history[0]
        if name in CURVES or name.startswith(("entropy_", "skip_connects_"))
    ]
    return {name: [_short(row[name]) for row in result.history] for name in kept}


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
