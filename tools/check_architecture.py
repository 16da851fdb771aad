"""Check that the rooms of ``advisor/`` import in one direction, and that the pure ones stay pure.

``python -m tools.check_architecture`` prints one line per violation and exits 1 if there is any. The tables below are
the rules; a module is checked by its source alone, nothing is imported.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "advisor"
TOP_MODULES = frozenset({PACKAGE, f"{PACKAGE}.__main__"})

# Above the line: functions of values.
PURE_ROOMS = frozenset({"domain", "memory", "metrics", "twin", "search"})

# Which rooms a room may import besides itself. `advisor/__init__.py` and `advisor/__main__.py` are the room "".
ALLOWED_EDGES: Mapping[str, frozenset[str]] = {
    "domain": frozenset(),
    "memory": frozenset({"domain"}),
    "metrics": frozenset({"domain"}),
    "twin": frozenset({"domain", "memory", "metrics"}),
    "search": frozenset({"domain", "memory", "metrics", "twin"}),
    "host": PURE_ROOMS,
    "store": PURE_ROOMS,
    "load": PURE_ROOMS | {"host"},
    "engines": PURE_ROOMS | {"host", "load", "store"},
    "app": PURE_ROOMS | {"engines", "host", "load", "store"},
    "report": PURE_ROOMS | {"engines", "store", "app"},
    "cli": PURE_ROOMS | {"engines", "host", "load", "store", "app", "report"},
    "": PURE_ROOMS | {"app", "cli", "report"},
}

# What a pure room may import from outside: nothing here opens a file, a socket or a process, or reads a clock.
PURE_MODULES = frozenset(
    {
        *("__future__", "abc", "base64", "bisect", "collections", "copy", "dataclasses", "datetime", "decimal"),
        *("difflib", "enum", "fractions", "functools", "graphlib", "hashlib", "heapq", "itertools", "json", "math"),
        *("numbers", "operator", "re", "shlex", "statistics", "string", "struct", "textwrap", "types", "typing"),
        *("unicodedata", "warnings", "weakref", "zlib"),
        *("annotated_types", "numpy", "pydantic", "pydantic_core", "typing_extensions"),
    }
)
# Names that reach outside all the same, as they are written in code.
IMPURE_CALLS = frozenset(
    {
        *("open", "input", "exec", "eval", "__import__"),
        *("datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
        *("np.load", "np.save", "np.savez", "np.savez_compressed", "np.loadtxt", "np.savetxt", "np.fromfile"),
        *("np.memmap", "np.genfromtxt"),
    }
)
# Seeded generators; every other `np.random` function draws from hidden global state.
SEEDED_RANDOM = frozenset({"default_rng", "Generator", "SeedSequence", "PCG64", "Philox", "BitGenerator"})

# One module alone may know the drawn worlds: what proposes, admits and estimates must not see the answers.
PRIVATE_MODULES: Mapping[str, frozenset[str]] = {"advisor.twin.worlds": frozenset({"advisor.engines.simulated"})}

GIB_HOME = "advisor.domain.units"
SPEAKING_ROOMS = frozenset({"cli"})
SPEAKING_MODULES = frozenset({"advisor.__main__"})


@dataclass(frozen=True, order=True)
class Violation:
    """One broken rule, where it stands and what to do."""

    module: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Import:
    """One imported module; `at_start` is false inside functions and under TYPE_CHECKING."""

    target: str
    line: int
    at_start: bool


def room_of(module: str) -> str:
    """Room of a module of the package: ``advisor.twin.scheduler`` -> ``twin``; ``advisor.__main__`` -> ``""``."""
    return "" if module in TOP_MODULES else module.split(".")[1]


def imports_of(tree: ast.Module, module: str, known: Iterable[str] = ()) -> list[Import]:
    """Every import of a module, relative ones resolved; `from a import b` means `a.b` where that is a known module."""
    modules = frozenset(known)
    found: list[Import] = []
    for node, at_start in _walk(tree, at_start=True):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno, at_start) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found.append(Import(full if full in modules else base, node.lineno, at_start))
    return found


def _walk(node: ast.AST, at_start: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(node, ast.If) and _dotted(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
        )
        yield child, at_start and not later
        yield from _walk(child, at_start and not later)


def _absolute(node: ast.ImportFrom, module: str) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")[: -node.level]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return "?"


def _constant(node: ast.AST) -> int | None:
    """Value of an expression of whole-number literals, else None."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.BinOp):
        left, right = _constant(node.left), _constant(node.right)
        if left is None or right is None or not 0 <= right <= 2**32:
            return None
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Pow) and right <= 64:
            return int(left**right)
        if isinstance(node.op, ast.LShift) and right <= 64:
            return left << right
    return None


def check_module(module: str, source: str, known: Iterable[str] = ()) -> list[Violation]:
    """Violations of one module, in order of line.

    Args:
        module: Dotted name, ``advisor.twin.scheduler``.
        source: Its text.
        known: Dotted names of all modules of the package, to tell ``from package import module`` from a name.
    """
    tree = ast.parse(source)
    imports = imports_of(tree, module, known)
    checks = (
        _check_direction(module, imports),
        _check_private(module, imports),
        _check_purity(module, tree, imports),
        _check_gib(module, tree),
        _check_speech(module, tree),
    )
    return sorted(violation for check in checks for violation in check)


def _check_direction(module: str, imports: list[Import]) -> Iterator[Violation]:
    room = room_of(module)
    if room not in ALLOWED_EDGES:
        yield Violation(module, 1, f"unknown room {room!r}: name it in ALLOWED_EDGES, or move the module")
        return
    for found in imports:
        if found.target.split(".")[0] != PACKAGE or found.target in TOP_MODULES:
            continue
        target = room_of(found.target)
        if target != room and target not in ALLOWED_EDGES[room]:
            place = room or "the top of the package"
            yield Violation(module, found.line, f"{place} must not import {target} ({found.target})")


def _check_private(module: str, imports: list[Import]) -> Iterator[Violation]:
    for found in imports:
        for private, readers in PRIVATE_MODULES.items():
            if (found.target == private or found.target.startswith(f"{private}.")) and module not in readers:
                yield Violation(module, found.line, f"only {', '.join(sorted(readers))} may import {private}")


def _check_purity(module: str, tree: ast.Module, imports: list[Import]) -> Iterator[Violation]:
    room = room_of(module)
    if room not in PURE_ROOMS:
        return
    for found in imports:
        top = found.target.split(".")[0]
        if top != PACKAGE and top not in PURE_MODULES:
            yield Violation(module, found.line, f"{room} is pure and must not import {found.target}")
    for node in ast.walk(tree):
        name = _dotted(node) if isinstance(node, ast.Name | ast.Attribute) else ""
        plain = name.replace("numpy.", "np.", 1)
        if plain in IMPURE_CALLS or plain.removeprefix("datetime.") in IMPURE_CALLS:
            yield Violation(module, getattr(node, "lineno", 1), f"{room} is pure and must not use {name}")
        if plain.startswith("np.random.") and plain.split(".")[2] not in SEEDED_RANDOM:
            yield Violation(module, getattr(node, "lineno", 1), f"{name} draws from hidden state; pass a Generator")
        if isinstance(node, ast.Call) and not node.args and _dotted(node.func).endswith("default_rng"):
            yield Violation(module, node.lineno, "default_rng() without a seed cannot be repeated")


def _check_gib(module: str, tree: ast.Module) -> Iterator[Violation]:
    if module == GIB_HOME:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.expr) and _constant(node) == 2**30:
            yield Violation(module, node.lineno, f"GiB are converted in {GIB_HOME} only")


def _check_speech(module: str, tree: ast.Module) -> Iterator[Violation]:
    if room_of(module) in SPEAKING_ROOMS or module in SPEAKING_MODULES:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _dotted(node.func) in {"print", "sys.exit", "exit", "quit"}:
            yield Violation(module, node.lineno, f"{_dotted(node.func)}() belongs in cli: return a value or raise")
        if isinstance(node, ast.Raise) and node.exc is not None:
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if _dotted(raised) == "SystemExit":
                yield Violation(
                    module, node.lineno, "SystemExit belongs in cli: raise an error of advisor.domain.errors"
                )


def check_cycles(sources: Mapping[str, str]) -> list[Violation]:
    """A violation if modules import each other in a circle when they load."""
    graph = {}
    for module, source in sources.items():
        imports = imports_of(ast.parse(source), module, sources)
        graph[module] = {found.target for found in imports if found.at_start and found.target in sources} - {module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1]
        return [Violation(circle[0], 1, f"import cycle: {' -> '.join(circle)}")]
    return []


def package_sources(root: Path) -> dict[str, str]:
    """Source text of every module of the package under `root`, by dotted name."""
    sources = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return sources


def check_package(sources: Mapping[str, str]) -> list[Violation]:
    """Every violation of a package."""
    found = [violation for module, source in sources.items() for violation in check_module(module, source, sources)]
    return found + check_cycles(sources)


def main() -> int:
    """Check this checkout."""
    sources = package_sources(ROOT)
    found = check_package(sources)
    for violation in found:
        print(violation, file=sys.stderr)
    print(f"architecture: {len(sources)} modules, {len(found)} violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
