"""Checkpoints: one safetensors file per stage and set of inputs, replaced atomically and verified when read.

Checkpoints are kept outside DVC's outputs, because DVC may delete those. The name of a checkpoint's folder is the
hash of everything that the result depends on. So after a change of parameters, inputs or code no old state is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from models.training.events import State
from stages.errors import UserError, of_system
from stages.plumbing.code import code_of, packages_of
from stages.plumbing.files import sha256_of
from stages.plumbing.runtime import STATE


def key(stage: str, task: str, params: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """The hash of all that a stage's result depends on: active settings, inputs, code, packages and kind of device."""
    content = {
        "task": task,
        "params": params,
        "inputs": inputs,
        "code": sha256_of(*code_of(stage, task)),
        "packages": packages_of(stage, task),
        "cuda": torch.cuda.is_available(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


class Checkpoint:
    """The state of one stage for one key."""

    def __init__(self, stage: str, key: str):
        self.key = key
        self.folder = STATE / stage / key
        self.path = self.folder / "state.safetensors"
        self.notes = self.folder / "notes.json"

    def save(self, state: State) -> None:
        """Replaces the saved state atomically: a reader finds either the old state or the new one."""
        tensors: dict[str, Tensor] = {}
        tree = json.dumps(_pack(state, tensors))
        content = save(tensors, {"key": self.key, "tree": tree, "sha256": _digest(tree, tensors)})
        self._write(self.path, content)

    def load(self) -> State | None:
        """The saved state, or None. Raises UserError when it is damaged or belongs to other parameters."""
        if not self.path.exists():
            return None
        mend = f"delete {self.path} to start this stage again"
        try:
            with safetensors.safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (safetensors.SafetensorError, OSError) as error:
            known = of_system(error, self.path) if isinstance(error, OSError) else None
            raise known or UserError(f"checkpoint {self.path} is damaged ({error}); {mend}") from None
        if metadata.get("key") != self.key:
            raise UserError(f"checkpoint {self.path} belongs to other parameters, data or code; {mend}")
        if metadata.get("sha256") != _digest(metadata["tree"], tensors):
            raise UserError(f"checkpoint {self.path} is damaged (its checksum is wrong); {mend}")
        return _unpack(json.loads(metadata["tree"]), tensors)

    def note(self, **notes: str) -> None:
        """Saves short texts beside the state, such as the id of the MLflow run that it belongs to."""
        self._write(self.notes, json.dumps({**self.noted(), **notes}).encode())

    def noted(self) -> dict[str, str]:
        return json.loads(self.notes.read_text()) if self.notes.exists() else {}

    def remove(self) -> None:
        """Deletes the checkpoint, after the stage has succeeded."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, path: Path, content: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)


def _pack(node: Any, tensors: dict[str, Tensor]) -> Any:
    """A tree of dicts, lists, tensors and scalars as JSON. The tensors go into ``tensors``, under running numbers."""
    if isinstance(node, Tensor):
        name = str(len(tensors))
        # A clone, because safetensors refuses tensors that share memory.
        tensors[name] = node.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(node, dict):
        return {"dict": [[name, _pack(value, tensors)] for name, value in node.items()]}
    if isinstance(node, (list, tuple)):
        return {"list": [_pack(value, tensors) for value in node]}
    assert node is None or isinstance(node, (bool, int, float, str)), type(node)
    return node


def _unpack(node: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(node, dict):
        return node
    if "tensor" in node:
        return tensors[node["tensor"]]
    if "dict" in node:
        return {name: _unpack(value, tensors) for name, value in node["dict"]}
    return [_unpack(value, tensors) for value in node["list"]]


def _digest(tree: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(tree.encode())
    for name in sorted(tensors):
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
