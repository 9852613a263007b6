"""PTX text as a list of instructions, with its registers, labels, parameters and arrays."""

import re
from dataclasses import dataclass, field
from functools import cached_property

from ptx.values import TYPES, size_of

PARAMETER = re.compile(r"\.param\s+([^,]+?)\s+([\w$]+)(?:\[(\d+)\])?\s*(?:,|$)")
SHARED_ARRAY = re.compile(r"(\.extern)?\s*\.shared\s+\.align\s+(\d+)\s+\.b8\s+([\w$]+)\[(\d*)\]")
GLOBAL_ARRAY = re.compile(r"\.global\s+\.align\s+\d+\s+\.(\w+)\s+([\w$]+)(?:\[(\d+)\])?\s*(?:=\s*([^;]+))?;")
LOCAL_ARRAY = re.compile(r"\.local\s+\.align\s+\d+\s+\.b8\s+([\w$]+)\[(\d+)\]")
LABEL = re.compile(r"([\$\w]+):")


@dataclass(frozen=True)
class Instruction:
    """One statement: ``@!predicate name operands``."""

    predicate: str | None
    negated: bool
    name: str
    operands: tuple[str, ...]

    @cached_property
    def parts(self):
        return self.name.split(".")

    @cached_property
    def types(self):
        return [part for part in self.parts[1:] if part in TYPES]

    def __str__(self):
        return f"{self.name} {', '.join(self.operands)}"


@dataclass
class Program:
    """One kernel of a PTX text."""

    code: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    registers: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)  # where each begins
    parameter_bytes: int = 0
    shared: dict[str, int] = field(default_factory=dict)
    shared_bytes: int = 0
    dynamic_shared: str | None = None
    globals: dict[str, tuple[str, int, str | None]] = field(default_factory=dict)
    local: tuple[str, int] | None = None


def parse(text):
    """The first kernel of a PTX text."""
    text = re.sub(r"//[^\n]*|(?s:/\*.*?\*/)", "", text)
    text = re.sub(r"(?m)^\s*\.(loc|file)\b[^\n]*$", "", text)
    entry = re.search(r"\.entry\s+([\w$]+)\s*\(", text)
    end = closing(text, entry.end(), "()")
    program = Program()
    _parameters(program, text[entry.end() : end - 1])
    _arrays(program, text)
    begin = text.index("{", end) + 1
    Body(program).read(text[begin : closing(text, begin, "{}") - 1])
    return program


def closing(text, at, brackets):
    """Behind the bracket that closes the one before ``at``."""
    depth = 1
    while depth:
        depth += {brackets[0]: 1, brackets[1]: -1}.get(text[at], 0)
        at += 1
    return at


def split_operands(text):
    """At commas that are in no brackets."""
    found, depth = [""], 0
    for letter in text:
        depth += {"{": 1, "[": 1, "(": 1, "}": -1, "]": -1, ")": -1}.get(letter, 0)
        if letter == "," and not depth:
            found.append("")
        else:
            found[-1] += letter
    return [operand.strip() for operand in found if operand.strip()]


def _parameters(program, text):
    for found in PARAMETER.finditer(text.replace("\n", " ")):
        kind, name, count = found[1], found[2], found[3]
        size = size_of(next(word for word in re.findall(r"\.(\w+)", kind) if word in TYPES))
        given = re.search(r"\.align\s+(\d+)", kind)
        # With .ptr the alignment is that of what is pointed to.
        align = size if given is None or ".ptr" in kind else max(size, int(given[1]))
        program.parameters[name] = -(-program.parameter_bytes // align) * align
        program.parameter_bytes = program.parameters[name] + size * int(count or 1)


def _arrays(program, text):
    for extern, align, name, size in SHARED_ARRAY.findall(text):
        if extern or not size:
            program.dynamic_shared = name
            continue
        program.shared[name] = -(-program.shared_bytes // int(align)) * int(align)
        program.shared_bytes = program.shared[name] + int(size)
    for kind, name, count, values in GLOBAL_ARRAY.findall(text):
        program.globals[name] = kind, int(count or 1), values or None
    if found := LOCAL_ARRAY.search(text):
        program.local = found[1], int(found[2])


class Body:
    """Statements between braces; names that inner braces declare get a number, so that they are unique."""

    def __init__(self, program):
        self.program, self.scopes, self.serial = program, [{}], 0

    def read(self, text):
        at = 0
        while at < len(text):
            if text[at].isspace():
                at += 1
            elif found := LABEL.match(text, at):
                self.program.labels[self.name(":" + found[1])] = len(self.program.code)
                at = found.end()
            elif text[at] == "{":
                self.enter(text[at : closing(text, at + 1, "{}")])
                at += 1
            elif text[at] == "}":
                self.scopes.pop()
                at += 1
            else:
                end = text.index(";", at)
                self.statement(" ".join(text[at:end].split()))
                at = end + 1

    def enter(self, text):
        self.scopes.append({})
        for found in re.finditer(r"(?m)^\s*([\$\w]+):", text):
            self.declare(":" + found[1])

    def declare(self, name):
        self.serial += 1
        unique = f"{name}@{self.serial}" if len(self.scopes) > 1 else name
        self.scopes[-1][name] = unique
        return unique

    def name(self, name):
        return next((scope[name] for scope in reversed(self.scopes) if name in scope), name)

    def statement(self, text):
        if text.startswith(".reg"):
            self.registers(text)
        elif not text.startswith("."):
            self.instruction(text)

    def registers(self, text):
        kind, names = re.match(r"\.reg\s+\.(\w+)\s+(.*)", text).groups()
        for name in split_operands(names):
            if many := re.match(r"([%\w$]+)<(\d+)>", name):
                self.program.registers |= {f"{many[1]}{number}": kind for number in range(int(many[2]))}
            else:
                self.program.registers[self.declare(name)] = kind

    def instruction(self, text):
        guard = re.match(r"@(!?)([%\w$]+)\s+(.*)", text)
        predicate, negated = (self.name(guard[2]), bool(guard[1])) if guard else (None, False)
        name, rest = re.match(r"(\S+)\s*(.*)", guard[3] if guard else text).groups()
        operands = split_operands(rest)
        if name.split(".")[0] == "bra":
            operands = [self.name(":" + operands[0])]
        else:
            operands = [re.sub(r"[%A-Za-z_$][\w$%.]*", lambda found: self.name(found[0]), x) for x in operands]
        self.program.code.append(Instruction(predicate, negated, name, tuple(operands)))
