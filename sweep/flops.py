"""Counts the floating-point operations of a compiled program, loops as often as they run.

XLA's own cost analysis counts a loop's body once whatever its trip count, which for a stack of layers misses nearly
all of the work. This reads the optimized program's text, where every loop that came from a `scan` states its trip
count.
"""

import re
from dataclasses import dataclass
from math import prod

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_SHAPE = re.compile(r"([a-z]+\d*)\[([\d,]*)\]")
_TRIPS = re.compile(r'known_trip_count[":{]+n":"(\d+)"')
_CALLEES = re.compile(r"(?:calls|body|to_apply)=%?([\w.\-]+)")
_BRANCHES = re.compile(
    r"(?:branch_computations=\{([^}]*)\}|true_computation=%?([\w.\-]+), false_computation=%?([\w.\-]+))"
)
_ARITHMETIC = frozenset(
    "add subtract multiply divide maximum minimum power negate abs exponential exponential-minus-one log "  # noqa: SIM905
    "log-plus-one logistic rsqrt sqrt cbrt tanh erf sine cosine floor ceil sign remainder".split()
)
_FLOATS = frozenset({"f16", "bf16", "f32", "f64"})


@dataclass(frozen=True)
class _Instruction:
    name: str
    shape: str
    op: str
    rest: str


def count_flops(program: str, *, unknown_trips: int = 1) -> int:
    """Operations that one run of a compiled program performs.

    A matrix product of [m, k] and [k, n] counts 2 m k n, an elementwise operation or a reduction one per element.
    Of a conditional's branches the dearest counts. Calls into libraries other than matrix products count nothing.

    Args:
      program: `compiled.as_text()`.
      unknown_trips: how often to count a loop that does not state its trip count.

    Raises:
      ValueError: the text has no entry computation.
    """
    computations, entry = _parse(program)
    counted: dict[str, int] = {}

    def of(name: str) -> int:
        if name not in counted:
            shapes = {i.name: i.shape for i in computations[name]}
            counted[name] = sum(instruction(i, shapes) for i in computations[name])
        return counted[name]

    def instruction(i: _Instruction, shapes: dict[str, str]) -> int:
        if i.op in _ARITHMETIC:
            return _floats(i.shape)
        if i.op == "dot":
            return _dot(i, shapes)
        if i.op == "convolution":
            return _convolution(i, shapes)
        if i.op == "conditional":
            names = re.findall(r"[\w.\-]+", " ".join(filter(None, _BRANCHES.findall(i.rest)[0])))
            return max(of(name) for name in names)
        callees = _CALLEES.findall(i.rest)
        if i.op == "while":
            trips = _TRIPS.search(i.rest)
            return (int(trips[1]) if trips else unknown_trips) * sum(map(of, callees))
        if i.op in ("reduce", "reduce-window"):
            return max((_floats(shapes.get(name, "")) for name in _operands(i.rest)), default=0)
        return sum(map(of, callees)) if i.op in ("fusion", "call", "async-start") else 0

    return of(entry)


def _parse(program: str) -> tuple[dict[str, list[_Instruction]], str]:
    computations: dict[str, list[_Instruction]] = {}
    entry, current = None, None
    for line in program.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations.setdefault(header[1], [])
            if line.startswith("ENTRY"):
                entry = header[1]
        elif current is not None and (found := _INSTRUCTION.match(line)):
            current.append(_Instruction(*found.groups()))
    if entry is None:
        raise ValueError("count_flops: the text is not a compiled program: it has no ENTRY computation")
    return computations, entry


def _operands(rest: str) -> list[str]:
    return re.findall(r"%([\w.\-]+)", rest.split(")", 1)[0])


def _floats(shape: str) -> int:
    """Number of floating-point elements in a shape or a tuple of shapes."""
    return sum(prod(map(int, filter(None, dims.split(",")))) for kind, dims in _SHAPE.findall(shape) if kind in _FLOATS)


def _dot(i: _Instruction, shapes: dict[str, str]) -> int:
    left = [int(d) for d in _SHAPE.findall(shapes[_operands(i.rest)[0]])[0][1].split(",")]
    contracted = re.findall(r"lhs_contracting_dims=\{([\d,]*)\}", i.rest)[0]
    return 2 * _floats(i.shape) * prod(left[int(d)] for d in contracted.split(",") if d)


def _convolution(i: _Instruction, shapes: dict[str, str]) -> int:
    """Every output as a sum over the whole kernel, its zeros from padding and dilation included."""
    kernel = [int(d) for d in _SHAPE.findall(shapes[_operands(i.rest)[1]])[0][1].split(",")]
    outputs = re.findall(r"dim_labels=\w+_(\w+)->", i.rest)[0].index("o")
    return 2 * _floats(i.shape) * prod(kernel) // kernel[outputs]
