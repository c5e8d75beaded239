"""Reads the files that a user gives: amplitudes and matrices (.npy), edges and Pauli strings (.csv).

Their size is bounded before they are read, and no pickle is loaded.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.circuits.circuit import Coupling
from stages.circuits.params import MOST_QUBITS
from stages.errors import UserError, of_system

_MOST_TEXT = 2**20  # bytes
_MOST_HEADER = 2**12


def read_array(root: str, dimensions: int) -> NDArray[np.complex128]:
    """The numbers in a .npy file: amplitudes (2**n,) or a matrix (2**n, 2**n). Raises UserError."""
    path, most = Path(root), 16 * 2 ** (MOST_QUBITS * dimensions) + _MOST_HEADER
    _check_size(path, most, f"{MOST_QUBITS} qubits take")
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is no array that can be read ({reason}); write it with numpy.save") from None
    if array.dtype.kind not in "fciu":
        raise UserError(f"{path} holds {array.dtype}, not numbers; write complex numbers with numpy.save")
    if array.ndim != dimensions:
        shape = " x ".join(["2^n"] * dimensions)
        raise UserError(f"{path} has the shape {array.shape}; it needs {shape} entries for n qubits")
    return np.ascontiguousarray(array, dtype=np.complex128)


def read_edges(root: str) -> tuple[Coupling, ...]:
    """The edges in a CSV file: two nodes per line, counted from 0. Raises UserError, which names the line."""
    edges: dict[Coupling, int] = {}
    for number, row in _rows(Path(root)):
        where = f"{root}, line {number}"
        try:
            one, other = (int(text) for text in row)
        except ValueError:
            if not edges and number == 1 and not any(text.strip().lstrip("-").isdigit() for text in row):
                continue  # a header
            raise UserError(
                f"{where}: {','.join(row)!r} is no edge; write two numbers of nodes, such as 0,1"
            ) from None
        if min(one, other) < 0 or max(one, other) >= MOST_QUBITS:
            raise UserError(
                f"{where}: the edge {one},{other} is out of range; choose nodes from 0 to {MOST_QUBITS - 1}"
            )
        if one == other:
            raise UserError(f"{where}: the edge {one},{other} leads to itself; leave it out")
        edge = min(one, other), max(one, other)
        if edge in edges:
            raise UserError(
                f"{where}: the edge {one},{other} is in line {edges[edge]} already; leave one out"
            )
        edges[edge] = number
    if not edges:
        raise UserError(f"{root} has no edges; write one per line, such as 0,1")
    return tuple(edges)


def read_paulis(root: str) -> dict[str, float]:
    """Pauli string -> coefficient, from a CSV file with one of each per line. Raises UserError, which names the line."""
    terms: dict[str, float] = {}
    for number, row in _rows(Path(root)):
        where = f"{root}, line {number}"
        if (
            not terms
            and number == 1
            and row
            and row[0].strip().lower() in ("pauli", "string", "term", "operator")
        ):
            continue  # a header
        try:
            string, text = row
            value = complex(text.strip().replace(" ", ""))
        except ValueError:
            raise UserError(
                f"{where}: {','.join(row)!r} is no term; write a Pauli string and a number, such as ZZ,0.5"
            ) from None
        string = string.strip().upper()
        if string in terms:
            raise UserError(f"{where}: {string} is there twice; add the two coefficients")
        if value.imag != 0:
            raise UserError(
                f"{where}: the Hamiltonian is not Hermitian, because {string} has the coefficient {text.strip()}; give real"
                " numbers"
            )
        if not np.isfinite(value):
            raise UserError(f"{where}: the coefficient of {string} is {text.strip()}; give a finite number")
        terms[string] = value.real
    if not terms:
        raise UserError(f"{root} has no terms; write one per line, such as ZZ,0.5")
    return terms


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a CSV file with their numbers, without empty ones and remarks (#)."""
    _check_size(path, _MOST_TEXT, "this pipeline reads of a CSV file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for row in reader:
                if any(text.strip() for text in row) and not row[0].lstrip().startswith("#"):
                    yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV file ({' '.join(str(error).split())[:100]})") from None


def _check_size(path: Path, most: int, what: str) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise of_system(error, path) or error from None
    if size > most:
        raise UserError(f"{path} has {size / 1e6:.1f} MB, more than the {most / 1e6:.1f} MB that {what}")
