"""Bytes that one instruction of a compiled program moves: between HBM and the chip's fast memory, and to other chips."""

import re

from experiments.tpu.hlo import Computation, HloProgram, Instruction

Number = int | float
_FREE = {
    "parameter",
    "constant",
    "get-tuple-element",
    "tuple",
    "bitcast",
    "while",
    "conditional",
    "call",
    "async-start",
}
_SLICES = {"dynamic-slice", "slice", "gather", "slice-start", "dynamic-slice-start"}
_UPDATES = {"dynamic-update-slice": 1, "scatter": 2}  # the operand that says what is written
# What a chip of a ring of n sends, in sizes of the result: (n - 1) / n times this, or a plain copy.
_RINGS = {"all-reduce": 2.0, "all-gather": 1.0, "all-to-all": 1.0, "ragged-all-to-all": 1.0}
_COPIES = {"collective-permute", "collective-broadcast"}


def through_memory(one: Instruction, name: str, program: HloProgram) -> Number:
    """Bytes that an instruction reads from HBM and writes to it."""
    if one.opcode in _FREE or one.opcode.endswith(("-done", "-update")):
        return 0
    given = program.computations[name]
    read = sum(
        min(full, _touched(one, place, full, program))
        for place, operand in enumerate(one.operands)
        if operand in given and (full := sum(array.bytes for array in given[operand].arrays if not array.on_chip))
    )
    return read + _written(one, given, program)


def _touched(one: Instruction, place: int, full: Number, program: HloProgram) -> Number:
    """How much of an operand of `full` bytes an instruction needs: of a stack of layers perhaps one layer."""
    if one.opcode == "fusion":
        return _used(program.computations[one.called[0]], place, full, program)
    if one.opcode in _SLICES and place == 0:
        return _result(one)
    return 0 if one.opcode in _UPDATES and place == 0 else full


def _used(inside: Computation, number: int, full: Number, program: HloProgram) -> Number:
    views = _views(inside, number, program)
    uses = [(one, operand) for one in inside.values() if one.name not in views for operand in enumerate(one.operands)]
    return sum(_touched(one, place, full, program) for one, (place, operand) in uses if operand in views)


def _views(inside: Computation, number: int, program: HloProgram) -> set[str]:
    """The names under which a parameter of a computation appears in it."""
    names = {one.name for one in inside.values() if one.opcode == "parameter" and one.arguments == str(number)}
    for one in inside.values():
        for place, operand in enumerate(one.operands):
            if operand in names and (one.opcode == "bitcast" or _is_view(one, place, program)):
                names.add(one.name)
    return names


def _is_view(one: Instruction, place: int, program: HloProgram) -> bool:
    if one.opcode != "fusion":
        return False
    inside = program.computations[one.called[0]]
    return next(reversed(inside.values())).name in _views(inside, place, program)


def _written(one: Instruction, given: Computation, program: HloProgram) -> Number:
    if one.opcode.endswith("-start"):
        return 0 if one.arrays[0].on_chip or one.opcode != "copy-start" else one.arrays[0].bytes
    if one.opcode == "fusion":
        inside = program.computations[one.called[0]]
        root = next(reversed(inside.values()))
        roots = [inside[name] for name in root.operands] if root.opcode == "tuple" else [root]
        parts = [_update(part, inside) for part in roots]
        known = len(parts) == len(one.arrays)
    else:
        parts, known = [_update(one, given)], one.opcode in _UPDATES
    parts = parts if known else [None] * len(one.arrays)
    pairs = zip(parts, one.arrays, strict=True)
    return sum(array.bytes if part is None else part for part, array in pairs if not array.on_chip)


def _update(one: Instruction, given: Computation) -> Number | None:
    """The size of what is written into an array that stays where it is, if this is such an instruction."""
    while one.opcode == "bitcast" and one.operands[0] in given:
        one = given[one.operands[0]]
    return _result(given[one.operands[_UPDATES[one.opcode]]]) if one.opcode in _UPDATES else None


def _result(one: Instruction) -> Number:
    arrays = one.arrays
    return arrays[-2].bytes if one.opcode.endswith("-start") else sum(array.bytes for array in arrays)


def over_links(one: Instruction, program: HloProgram) -> Number:
    """Bytes that one chip sends when an exchange runs in a ring, as all links allow at best."""
    kind = one.opcode.removesuffix("-start")
    arrays = [array.bytes for array in one.arrays]
    if one.opcode != kind and kind != "all-reduce":  # what goes in stands before what comes out
        arrays = arrays[len(arrays) // 2 :] if kind == "all-gather" else arrays[1:2]
    if kind in _COPIES:
        return sum(arrays)
    if kind == "reduce-scatter":
        return sum(arrays) * (_group(one, program) - 1)
    if kind not in _RINGS:
        return 0
    ring = _group(one, program)
    return _RINGS[kind] * sum(arrays) * (ring - 1) / ring


def _group(one: Instruction, program: HloProgram) -> int:
    """How many chips exchange something among them."""
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", one.rest):
        return int(found[1])
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", one.rest):
        return len(found[1].split(","))
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\].*?\{([^}]*)\}", one.rest):
        lengths = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", found[2])
        size = 1
        for axis, part in axes:
            size *= int(part or lengths[axis])
        return size
    return int(re.findall(r"num_partitions=(\d+)", program.text)[0])
