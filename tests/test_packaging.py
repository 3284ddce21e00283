"""What is shipped: an sdist that builds, a wheel with one top-level name and every module in it."""

import ast
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from harness.programs import plain_environment

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    tree = out / "tree"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in filter(None, listed.decode().split("\0")):
        source, target = ROOT / name, tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.exists():
            target.write_bytes(source.read_bytes())
    build(tree, "sdist", "--dist-dir", out)
    return next(out.glob("*.tar.gz"))


def build(tree: Path, *command: object) -> None:
    env = plain_environment()
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", *map(str, command)],
        cwd=tree,
        env=env | {"TURNOUT_OPTIMIZE": "-O0", "TURNOUT_SANITIZE": "0", "TURNOUT_BUILD_JOBS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(sdist) -> set[str]:
    """Names in the wheel that the sdist builds."""
    with tarfile.open(sdist) as archive:
        archive.extractall(sdist.parent, filter="data")
    build(sdist.parent / sdist.name.removesuffix(".tar.gz"), "bdist_wheel", "--dist-dir", sdist.parent)
    with zipfile.ZipFile(next(sdist.parent.glob("*.whl"))) as archive:
        return set(archive.namelist())


def modules() -> list[str]:
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MODULES":
            return ast.literal_eval(node.value)
    raise AssertionError("setup.py has no list MODULES")


@pytest.mark.timeout(300)
def test_the_wheel_has_one_top_level_name_and_every_extension_module(wheel):
    top = {name.split("/")[0] for name in wheel if ".dist-info/" not in name}
    built = {Path(name).name.split(".")[0] for name in wheel if name.endswith(".so")}

    assert top == {"turnout"}
    assert built == set(modules())


def test_the_wheel_has_the_python_sides_the_stubs_and_the_manuals(wheel):
    shipped = {
        f"turnout/{part}/{path.name}"
        for part, endings in (("ext", (".pxd", ".pyi")), ("proxy", (".py",)), ("control", (".py",)))
        for path in (ROOT / part).iterdir()
        if path.suffix in endings
    }

    assert (shipped | {"turnout/py.typed"}) - wheel == set()
