"""Reads OpenQASM 3: standard gates on one or more registers, gates that the file defines, barriers, and holes.

The parser is that of the OpenQASM project. What a circuit cannot be here (measurements, loops, inputs, modifiers) is
refused with its line. A hole is a call of a gate ``hole``, such as ``hole q[1];``. Where the file has barriers on all qubits,
they separate the moments; otherwise each gate is in the earliest moment that its qubits allow.

Qubits are numbered in the order of their declaration: qubit 0 is the least significant bit of a basis state's index.
"""

from __future__ import annotations

import contextlib
import io
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openqasm3 import ast
from openqasm3.parser import QASM3ParsingError, parse

from models.circuits.circuit import Gate, Hole, check_gate, check_on, check_qubits
from models.circuits.notation import moments_of
from models.errors import InvalidInput
from stages.errors import UserError, of_system

MOST_BYTES, MOST_STATEMENTS, MOST_DEPTH = 2**20, 20_000, 20
Element = Gate | Hole
_CONSTANTS = {"pi": math.pi, "π": math.pi, "tau": 2 * math.pi, "τ": 2 * math.pi, "euler": math.e, "ℇ": math.e}
_OPERATORS: Mapping[str, Callable[[float, float], float]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "**": operator.pow,
}  # fmt: skip
# Other names of the standard library's gates, and of the language's own.
_ALIASES = {"U": "u", "u3": "u", "phase": "p", "u1": "p", "CX": "cx", "cphase": "cp"}


@dataclass(frozen=True)
class Program:
    """What a file says: moments of gates and holes on so many qubits."""

    qubits: int
    moments: Sequence[Sequence[Element]]

    @property
    def gates(self) -> list[Gate]:
        return [element for moment in self.moments for element in moment if isinstance(element, Gate)]

    @property
    def holes(self) -> int:
        return sum(isinstance(element, Hole) for moment in self.moments for element in moment)


def read_program(path: Path) -> Program:
    """The program in a file. Raises UserError, with the line where there is one."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path} has more than {MOST_BYTES // 2**20} MiB; give a shorter circuit")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file in UTF-8") from None
    except OSError as error:
        raise of_system(error, path) or error from None
    return parsed(text, str(path))


def parsed(text: str, where: str) -> Program:
    """The program in a text, which ``where`` names in messages. Raises UserError."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # on which ANTLR repeats what it raises
            statements = parse(text).statements
    except QASM3ParsingError as error:
        raise UserError(f"{where}{_line_of(error)}: is not OpenQASM 3; correct it") from None
    except RecursionError:
        raise UserError(f"{where}: is nested too deeply; write it flat") from None
    reader = _Reader(where)
    for statement in statements:
        reader.read(statement)
    return reader.program()


@dataclass
class _Reader:
    """Goes through the statements of a file."""

    where: str
    registers: dict[str, range] = field(default_factory=dict)
    definitions: dict[str, ast.QuantumGateDefinition] = field(default_factory=dict)
    elements: list[Element] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)  # of moments, where barriers say them

    @property
    def qubits(self) -> int:
        return sum(map(len, self.registers.values()))

    def read(self, statement: Any) -> None:
        match statement:
            case ast.Include():
                if statement.filename != "stdgates.inc":
                    raise self.refusal(
                        statement, f"include {statement.filename!r} is not read; only stdgates.inc is"
                    )
            case ast.QubitDeclaration():
                self.declare(statement)
            case ast.QuantumGateDefinition():
                self.definitions[statement.name.name] = statement
            case ast.QuantumGate():
                self.call(statement)
            case ast.QuantumPhase() if not statement.modifiers and not statement.qubits:
                pass  # a global phase, which nothing can measure
            case ast.QuantumBarrier():
                touched = {
                    qubit for operand in statement.qubits for qubit in self.operand(operand, statement)
                }
                if not statement.qubits or len(touched) == self.qubits:
                    self.ends.append(len(self.elements))
            case _:
                raise self.refusal(
                    statement, f"{_kind(statement)} is not supported; write gates, barriers and holes only"
                )

    def program(self) -> Program:
        if not self.registers:
            raise UserError(f"{self.where}: declares no qubits; write `qubit[3] q;`")
        if not self.ends:
            return Program(self.qubits, moments_of(self.elements, self.qubits))
        moments: list[Sequence[Element]] = []
        for first, last in zip([0, *self.ends], [*self.ends, len(self.elements)], strict=True):
            moments += moments_of(self.elements[first:last], self.qubits) or [[]]
        if self.ends[-1] == len(self.elements):  # nothing follows the last barrier
            moments.pop()
        return Program(self.qubits, moments)

    def declare(self, statement: ast.QubitDeclaration) -> None:
        size = 1 if statement.size is None else getattr(statement.size, "value", 0)
        name, first = statement.qubit.name, self.qubits
        if name in self.registers:
            raise self.refusal(statement, f"{name} is declared twice; name it otherwise")
        try:
            check_qubits(first + size)
        except InvalidInput as error:
            raise self.refusal(statement, str(error)) from None
        self.registers[name] = range(first, first + size)

    def call(self, statement: ast.QuantumGate) -> None:
        """A call on qubits or on whole registers, which calls the gate on each of their qubits."""
        if statement.modifiers:
            raise self.refusal(statement, "ctrl, inv and pow are not supported; write the gates themselves")
        operands = [self.operand(operand, statement) for operand in statement.qubits]
        lengths = {len(operand) for operand in operands if len(operand) > 1}
        if len(lengths) > 1:
            raise self.refusal(statement, "the registers have different lengths; give them the same")
        for turn in range(max(map(len, operands), default=0)):
            qubits = tuple(operand[turn if len(operand) > 1 else 0] for operand in operands)
            angles = [self.number(argument, {}, statement) for argument in statement.arguments]
            self.apply(statement.name.name, angles, qubits, statement, 0)

    def apply(
        self, name: str, angles: Sequence[float], qubits: tuple[int, ...], statement: Any, depth: int
    ) -> None:
        """A gate on qubits. Gates that the file defines are replaced by what their bodies say."""
        if len(self.elements) >= MOST_STATEMENTS or depth > MOST_DEPTH:
            raise self.refusal(
                statement,
                f"more than {MOST_STATEMENTS:,} gates, or definitions nested too deeply; write less",
            )
        try:
            if name == "hole":
                check_on(qubits, self.qubits, "hole")
                self.elements += [Hole(qubit) for qubit in qubits]
            elif name in self.definitions:
                self.expand(self.definitions[name], angles, qubits, depth)
            else:
                gate = Gate(_ALIASES.get(name, name), qubits, tuple(angles))
                check_gate(gate, self.qubits)
                if gate.name != "id":  # does nothing, so its qubit is idle
                    self.elements.append(gate)
        except InvalidInput as error:
            raise self.refusal(statement, str(error)) from None

    def expand(
        self, gate: ast.QuantumGateDefinition, angles: Sequence[float], qubits: tuple[int, ...], depth: int
    ) -> None:
        if len(gate.arguments) != len(angles) or len(gate.qubits) != len(qubits):
            raise InvalidInput(
                f"{gate.name.name} is called with another number of angles or qubits than it has"
            )
        values = dict(zip((argument.name for argument in gate.arguments), angles, strict=True))
        places = dict(zip((qubit.name for qubit in gate.qubits), qubits, strict=True))
        for inner in gate.body:
            if isinstance(inner, ast.QuantumPhase) and not inner.modifiers:
                continue
            if not isinstance(inner, ast.QuantumGate) or inner.modifiers:
                raise self.refusal(inner, f"{_kind(inner)} is not supported in a gate; write gates only")
            where = tuple(self.inner(operand, places, inner) for operand in inner.qubits)
            arguments = [self.number(argument, values, inner) for argument in inner.arguments]
            self.apply(inner.name.name, arguments, where, inner, depth + 1)

    def inner(self, operand: Any, places: Mapping[str, int], statement: Any) -> int:
        if not isinstance(operand, ast.Identifier) or operand.name not in places:
            raise self.refusal(statement, "a gate acts on a qubit that it does not name; name its qubits")
        return places[operand.name]

    def operand(self, operand: Any, statement: Any) -> Sequence[int]:
        """The qubits of ``q`` or ``q[2]``."""
        name = operand.name if isinstance(operand, ast.Identifier) else getattr(operand.name, "name", "")
        if name not in self.registers:
            raise self.refusal(statement, f"the register {name!r} is not declared; declare it first")
        register = self.registers[name]
        if isinstance(operand, ast.Identifier):
            return register
        (indices,) = operand.indices
        index = (
            getattr(indices[0], "value", None) if isinstance(indices, list) and len(indices) == 1 else None
        )
        if not isinstance(index, int):
            raise self.refusal(statement, "qubits are named as q or q[0]; write them so")
        if not 0 <= index < len(register):
            raise self.refusal(
                statement, f"qubit {index} of {name} is out of range; choose from 0 to {len(register) - 1}"
            )
        return register[index : index + 1]

    def number(self, node: Any, values: Mapping[str, float], statement: Any) -> float:
        """The value of an angle."""
        try:
            match node:
                case ast.FloatLiteral() | ast.IntegerLiteral():
                    return float(node.value)
                case ast.Identifier() if node.name in values or node.name in _CONSTANTS:
                    return values[node.name] if node.name in values else _CONSTANTS[node.name]
                case ast.UnaryExpression() if node.op.name == "-":
                    return -self.number(node.expression, values, statement)
                case ast.BinaryExpression() if node.op.name in _OPERATORS:
                    sides = (self.number(side, values, statement) for side in (node.lhs, node.rhs))
                    return float(_OPERATORS[node.op.name](*sides))
        except (ZeroDivisionError, OverflowError, TypeError, RecursionError):
            raise self.refusal(statement, "an angle is no finite number; write a number") from None
        raise self.refusal(
            statement, "an angle is neither a number nor made of numbers and pi; write a number"
        )

    def refusal(self, node: Any, words: str) -> UserError:
        line = f", line {node.span.start_line}" if getattr(node, "span", None) else ""
        return UserError(f"{self.where}{line}: {words}")


def _kind(node: Any) -> str:
    """What a statement is called, such as "quantum measurement statement"."""
    name = type(node).__name__.replace("IODeclaration", "Input")
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()


def _line_of(error: QASM3ParsingError) -> str:
    """The place of a syntax error, which the parser's exception holds somewhere in its causes."""
    cause = error.__cause__
    inner = cause.args[0] if cause is not None and cause.args else cause
    token = getattr(inner, "offendingToken", None)
    if token is not None:
        return f", line {token.line}"
    said = " ".join(str(error).split())
    return f" ({said[:100]})" if said else ""
