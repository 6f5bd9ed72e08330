"""Imports point only downwards, and each cloud's library is imported by its own files only."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).resolve().parent.parent / "push_pools"
FLOORS = {
    "domain": 0,
    "ports": 1,
    "services": 2,
    "credentials": 3,
    "sqlite_file": 3,
    "clocks": 3,
    "platforms": 4,
    "stores": 4,
    "queues": 4,
    "vault": 4,
    "settings": 5,
    "bootstrap": 5,
    "cli": 6,
    "functions": 6,
    "server": 6,
    "testing": 6,
}
MAY_SEE = {0: {0}, 1: {0}, 2: {0, 1, 2}, 3: {0, 1, 3}, 4: {0, 1, 3}, 5: {0, 1, 2, 3, 4, 5}, 6: {0, 1, 2, 3, 4, 5, 6}}
"""Floor → the floors it may import from. Within floor 4 only a part's own files."""
PURE = {"pydantic", "pydantic_core", "cronsim", "dateutil", "jsonschema", "annotated_types", "referencing"}
"""What floor 0 may import beside the standard library."""
OWNERS = {
    "azure": {"credentials/azure", "platforms/aci"},
    "boto3": {"credentials/aws", "platforms/ecs", "testing/ecs"},
    "botocore": {
        "credentials/aws",
        "platforms/ecs",
        "queues/",
        "stores/dynamodb",
        "testing/ecs",
        "testing/dynamodb",
        "vault/kms",
    },
    "google": {"credentials/gcp", "platforms/cloud_run", "testing/cloud_run"},
    "grpc": {"credentials/gcp", "platforms/cloud_run", "testing/cloud_run"},
    "requests": {"credentials/gcp"},
    "sqlite3": {"sqlite_file"},
    "cryptography": {"vault/", "functions/oidc"},
    "yaml": {"services/config_file", "cli/"},
    "typer": {"cli/"},
    "rich": {"cli/"},
    "pytest": {"testing/contracts/"},
    "aws_lambda_powertools": {"functions/"},
}
"""Library → the beginnings of the paths that may import it."""
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Yield the full names of the modules that a file imports, those for type checking apart."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        else:
            continue
        if id(node) not in typing_only:
            yield from names


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    """A file imports from its own floor's part, and from the floors it may see."""
    here = part_of(path)
    if here == "__init__":
        return
    assert here in FLOORS, f"{here} is on no floor: give it one here and in docs/design.md"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "push_pools" or len(parts) == 1:
            continue
        there = parts[1]
        assert FLOORS[there] in MAY_SEE[FLOORS[here]] or here == there, f"{path} imports {name}"


@pytest.mark.parametrize("path", [p for p in FILES if part_of(p) == "domain"], ids=lambda p: p.name)
def test_the_domain_is_pure(path: Path) -> None:
    """Standard library and pure libraries only, and nothing of the former that touches the world."""
    import sys

    for name in imports(path):
        top = name.split(".")[0]
        assert top == "push_pools" or top in PURE or top in sys.stdlib_module_names, f"{path} imports {name}"
        assert top not in {"os", "socket", "subprocess", "random", "time", "threading"}, f"{path}: {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_libraries_have_owners(path: Path) -> None:
    """So that a function loads only what it runs."""
    where = str(path.relative_to(PACKAGE))
    for name in imports(path):
        owners = OWNERS.get(name.split(".")[0])
        if owners is not None:
            assert any(where.startswith(owner) for owner in owners), f"{where} imports {name}"


def test_the_floors_test_can_fail(tmp_path: Path) -> None:
    """It sees an import inside a function, and not one for type checking."""
    file = tmp_path / "x.py"
    file.write_text("if TYPE_CHECKING:\n    import a\ndef f():\n    from push_pools.cli import main\n")
    assert list(imports(file)) == ["push_pools.cli"]
