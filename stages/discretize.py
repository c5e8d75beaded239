"""discretize: the genotype that the architecture parameters of one epoch stand for, and a picture of each cell."""

from __future__ import annotations

import json
import sys

import safetensors
import torch

from models.images.genotype import to_json
from models.images.spaces import search_space
from models.search.discretize import discretize
from models.search.spaces import SearchSpace
from models.search.strategies import Relaxation
from stages.errors import UserError
from stages.images import pictures
from stages.params import Params
from stages.plumbing.files import GENOTYPE, SEARCH, read_json, replacing, write_json
from stages.plumbing.runtime import run
from stages.plumbing.tracking import stage_run
from stages.search import RELAXATIONS


def main(params: Params) -> None:
    space, relaxation, alphas = read_alphas()
    epoch = read_json(SEARCH / "summary.json")["epoch" if params.discretize.epoch == "last" else "best_epoch"]
    mix = {group: relaxation(history[epoch - 1]) for group, history in alphas.items()}
    genotype = discretize(space, mix)
    with stage_run("discretize", params.discretize.model_dump()) as tracked:
        with replacing(GENOTYPE) as folder:
            write_json(folder / "genotype.json", to_json(genotype))
            for group in genotype.groups:
                pictures.cell(folder / f"{group}.png", genotype, group)
        tracked.metrics({"epoch_used": epoch})
        tracked.artifacts(GENOTYPE)
    for group, edges in genotype.groups.items():
        print(f"discretize: {group} cell: {', '.join(f'{src}->{dst} {op}' for src, dst, op in edges)}")


def read_alphas() -> tuple[SearchSpace, Relaxation, dict[str, torch.Tensor]]:
    """The space, how alpha becomes a mix, and cell type -> alpha (epochs, edges, operations)."""
    path = SEARCH / "alphas.safetensors"
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["search"])
            alphas = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path} is missing; `dvc repro search` makes it") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}); delete artifacts/search and run `dvc repro`") from None
    space = search_space(about["space"], exclude_none=about["exclude_none"])
    return space, RELAXATIONS[about["relaxation"]], alphas


if __name__ == "__main__":
    sys.exit(run("discretize", main))
