"""The text of a compiled program, taken apart: computations, their instructions, how often loops run."""

import math
import re
from dataclasses import dataclass

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\(([^)]*)\)(.*)$")
_ARRAY = re.compile(r"\b(pred|[a-z]+[0-9]\w*)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|branch_computations)=(\{[^}]*\}|%[\w.\-]+)")
_NAME = re.compile(r"%([\w.\-]+)")
# Other instructions call computations too, such as the sum of two numbers in a reduction.
_CALLERS = ("while", "fusion", "call", "conditional", "async-start")
_COUNTING = {"parameter", "get-tuple-element", "constant", "compare"}


@dataclass(frozen=True)
class Array:
    """One array of a shape; `on_chip` if the compiler keeps it in the chip's fast memory instead of HBM."""

    bytes: int
    on_chip: bool


@dataclass(frozen=True)
class Instruction:
    """One line: `name = shape opcode(arguments)rest`."""

    name: str
    shape: str
    opcode: str
    arguments: str
    rest: str

    @property
    def operands(self) -> list[str]:
        return _NAME.findall(self.arguments)

    @property
    def arrays(self) -> list[Array]:
        """What it gives, tuples flattened."""
        return [_array(*found) for found in _ARRAY.findall(self.shape)]

    @property
    def called(self) -> list[str]:
        """The computations that it runs."""
        found = _CALLED.findall(self.rest) if self.opcode in _CALLERS else []
        return [name for names in found for name in _NAME.findall(names)]


Computation = dict[str, Instruction]


@dataclass(frozen=True)
class HloProgram:
    """Computations by name, each by instruction; the program runs `entry`."""

    text: str
    computations: dict[str, Computation]
    entry: str

    def beginning_with(self, name: str) -> str:
        """The text of the program that one of the computations would be by itself."""
        body = re.sub(r"^ENTRY ", "", self.text.partition("\n")[2], flags=re.M)
        return "HloModule part\n" + re.sub(rf"^%?{re.escape(name)} \(", rf"ENTRY %{name} (", body, count=1, flags=re.M)

    def trips(self, loop: Instruction, open_ended: int) -> int:
        """How often a `while` runs: as stated, or the constant up to which it counts, or `open_ended` if data decide."""
        if stated := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest):
            return int(stated[1])
        condition = self.computations[re.findall(r"condition=%([\w.\-]+)", loop.rest)[0]].values()
        limits = [int(one.arguments) for one in condition if one.opcode == "constant" and one.shape.startswith("s32[]")]
        counts = len(limits) == 1 and {one.opcode for one in condition} <= _COUNTING
        return limits[0] if counts else open_ended


def parse(text: str) -> HloProgram:
    """The text that `compiled.as_text()` gives, of any platform."""
    computations: dict[str, Computation] = {}
    entry = ""
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = computations[header[2]] = {}
            entry = header[2] if header[1] else entry
        elif found := _LINE.match(line):
            current[found[1]] = Instruction(*found.groups())
    return HloProgram(text, computations, entry)


def _array(kind: str, lengths: str, layout: str) -> Array:
    bits = 8 if kind == "pred" else int(re.findall(r"\d+", kind)[0])
    count = math.prod(int(length) for length in lengths.split(",") if length)
    return Array(count * bits // 8, "S(" in layout)
