"""The shape of the tree: who may import whom, and that the build knows every module."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from turnout.ext.conn import _sizes

ROOT = Path(__file__).parents[1]
PARTS = ("ext", "proxy", "control")
ENGINE_SIDE = {"turnout.ext.scoreboard"}
"""What control may read of ext: counters and states, never the engine."""


def sources(part: str, *endings: str) -> list[Path]:
    return sorted(path for path in (ROOT / part).rglob("*") if path.suffix in endings)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("turnout", *(part for part in parts if part != "__init__")))


def python_imports(path: Path, *, everywhere: bool) -> set[str]:
    """Modules of ours that a file imports: anywhere in it, or only while it is imported itself."""
    out = set()
    for node in statements(ast.parse(path.read_text()), everywhere=everywhere):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            out |= {target(node.module, alias.name) for alias in node.names}
    return {name for name in out if name.split(".")[0] == "turnout"}


def statements(tree: ast.AST, *, everywhere: bool):
    for node in ast.iter_child_nodes(tree):
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_for_types(node)
        if everywhere or not lazy:
            yield node
            yield from statements(node, everywhere=everywhere)


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def target(module: str, name: str) -> str:
    """`from a import b`: a.b when that is a module, else a."""
    folder = ROOT.joinpath(*module.split(".")[1:])
    is_module = (
        any((folder / f"{name}{ending}").exists() for ending in (".py", ".pyx")) or (folder / name).is_dir()
    )
    return f"{module}.{name}" if is_module else module


def cython_imports(path: Path) -> set[str]:
    return set(re.findall(r"^\s*(?:from|c?import)\s+(turnout[.\w]*)", path.read_text(), re.MULTILINE))


def imports(path: Path) -> set[str]:
    return cython_imports(path) if path.suffix in {".pyx", ".pxd"} else python_imports(path, everywhere=True)


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize(
    ("part", "allowed"), [("ext", {"ext"}), ("proxy", {"ext", "proxy"}), ("control", set(PARTS))]
)
def test_no_part_imports_what_stands_above_it(part, allowed):
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(part, ".py", ".pyi", ".pyx", ".pxd")
        for name in imports(path)
        if part_of(name) not in {*allowed, ""}
    }

    assert wrong == set()


def test_control_sees_of_the_engine_side_the_scoreboard_alone():
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources("control", ".py")
        for name in python_imports(path, everywhere=True)
        if part_of(name) == "ext" and name not in ENGINE_SIDE
    }

    assert wrong == set()


def test_python_modules_import_each_other_in_one_direction():
    graph = {
        module_name(path): python_imports(path, everywhere=False) - {module_name(path)}
        for part in ("proxy", "control")
        for path in sources(part, ".py")
    }

    assert list(TopologicalSorter(graph).static_order())


def test_the_manuals_of_the_engine_refer_to_each_other_in_one_direction():
    graph = {module_name(path): cython_imports(path) for path in sources("ext", ".pxd")}

    assert list(TopologicalSorter(graph).static_order())


def modules_built() -> list[str]:
    tree = ast.parse((ROOT / "setup.py").read_text())
    for node in tree.body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id == "MODULES"
        ):
            return ast.literal_eval(node.value)
    raise AssertionError("setup.py has no list MODULES")


def test_every_cython_module_is_built_and_listed_once():
    there = {path.stem for path in sources("ext", ".pyx")}

    assert there - set(modules_built()) == set()
    assert len(set(modules_built())) == len(modules_built())


def test_every_stub_stands_beside_a_module_and_every_module_beside_its_manual():
    modules = {path.stem for path in sources("ext", ".pyx")}

    assert {path.stem for path in sources("ext", ".pyi")} - modules == set()
    assert modules - {path.stem for path in sources("ext", ".pxd")} - {"engine"} == set()


def test_source_folders_are_linked_into_the_package():
    for part in PARTS:
        link = ROOT / "src" / "turnout" / part
        assert link.is_symlink()
        assert link.resolve() == ROOT / part


def test_an_idle_connection_costs_two_cache_lines():
    assert _sizes()["conn_t"] <= 128
