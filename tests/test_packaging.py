"""What is installed: under which name, on which versions, and which files come along."""

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import minillm

HOME = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((HOME / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
WHERE_IT_IS_THERE = {"llvmlite", "sentencepiece"}  # the first comes with Numba, the second reads one kind of old file


def test_the_distribution_has_a_name_of_its_own_and_the_command_is_minillm():
    assert PROJECT["name"] == "minillm-numpy"
    assert PROJECT["scripts"] == {"minillm": "minillm.__main__:main"}
    assert PYPROJECT["tool"]["hatch"]["version"]["path"] == "minillm/__init__.py"  # the number stands in one place
    assert re.fullmatch(r"\d+\.\d+\.\d+", minillm.__version__)


def test_nobody_is_told_to_install_another_project():
    for folder in ("minillm", "examples", "benchmarks", "tests", "."):
        for path in (HOME / folder).glob("*" if folder == "." else "**/*"):
            if path.suffix in (".py", ".md", ".toml"):
                found = re.search(r"pip install (-\w+ )*['\"]?minillm(?!-numpy)", path.read_text(encoding="utf-8"))
                assert not found, f"{path}: {found}"


def test_each_dependency_names_its_oldest_version():
    assert PROJECT["requires-python"] == ">=3.11"
    for dependency in PROJECT["dependencies"]:
        assert re.fullmatch(r"[a-z]+>=\d+(\.\d+)+", dependency), dependency


def test_the_dependencies_are_what_is_imported():
    imported = set()
    for path in (HOME / "minillm").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
    extras = PROJECT["optional-dependencies"]
    named = PROJECT["dependencies"] + extras["plot"] + extras["chat"]
    named = {re.match(r"\w+", requirement).group() for requirement in named}
    assert imported - set(sys.stdlib_module_names) == named | WHERE_IT_IS_THERE


def test_the_wheel_has_the_package_alone_and_the_sdist_all_that_tests_need(tmp_path):
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path)]
    subprocess.run(build, cwd=HOME, check=True, capture_output=True)
    name = f"minillm_numpy-{minillm.__version__}"
    package = files_of("minillm")
    with zipfile.ZipFile(tmp_path / f"{name}-py3-none-any.whl") as wheel:
        inside = {file for file in wheel.namelist() if not file.startswith(f"{name}.dist-info/")}
    assert inside == package and "minillm/py.typed" in package
    with tarfile.open(tmp_path / f"{name}.tar.gz") as sdist:
        inside = {file.removeprefix(f"{name}/") for file in sdist.getnames()}
    outside = {"README.md", "LICENSE", "pyproject.toml", ".gitignore", *files_of(".github"), *files_of(".ci")}
    outside |= files_of("tests") | files_of("examples") | files_of("benchmarks")
    assert inside == package | outside | {"PKG-INFO"}


def files_of(folder):
    """What stands in a folder, caches left out."""
    found = (path for path in (HOME / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(HOME).as_posix() for path in found}
