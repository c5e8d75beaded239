"""Reads circuit.qasm with Microsoft's Quantum Development Kit, which has a reader and a simulator of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.circuits.circuit import Gate
from stages.errors import UserError

_NAME = "FromFile"


def final_states(path: Path, qubits: int, inputs: Sequence[Sequence[Gate]]) -> list[NDArray[np.complex128]]:
    """The states (2**qubits,) after the circuit in the file, each up to a phase, from what ``inputs`` make of qubits 0.

    An input is a list of the gates x and h. Raises UserError when the file cannot be read.
    """
    os.environ["QDK_PYTHON_TELEMETRY"] = "none"  # read when the package is imported
    from qdk import openqasm, qsharp

    qsharp.init()  # forgets what was read before
    try:
        openqasm.import_openqasm(
            path.read_text(encoding="utf-8"), name=_NAME, program_type=openqasm.ProgramType.Operation
        )
    except qsharp.QSharpError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path.name} cannot be read back ({reason}); nothing was exported") from None
    qsharp.eval(f"use register = Qubit[{qubits}];")
    # The most significant bit of its states is the first qubit.
    order = [int(format(index, f"0{qubits}b")[::-1], 2) for index in range(2**qubits)]
    states = []
    for gates in inputs:
        qsharp.eval("ResetAll(register);")
        for gate in gates:
            qsharp.eval(f"{gate.name.upper()}(register[{gate.qubits[0]}]);")
        qsharp.eval(f"{_NAME}(register);")
        states.append(np.asarray(qsharp.dump_machine().as_dense_state(), dtype=np.complex128)[order])
    return states
