"""Make the bundle of the functions: a zip for Lambda, and the same bytes whenever it is made from the same sources.

    python infra/package.py                                   for AWS, as infra/functions.json says; ECS only
    python infra/package.py --set all                         with the clients of Google Cloud and Azure
    python infra/package.py --arch x86_64 --python 3.11       for another processor and Python
    python infra/package.py --wheels build/wheels             keeps what it fetched there, and uses it the next time
    python infra/package.py --out build/functions.zip

Prints the bundle's path, sizes and SHA-256. Needs Python 3.11 or newer, PyPI, and nothing else. boto3 is left out,
because Lambda's Python brings it. Versions are those of constraints.txt; only wheels are taken: nothing foreign runs.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
FUNCTIONS: Final[dict[str, Any]] = json.loads((ROOT / "infra" / "functions.json").read_text(encoding="utf-8"))
SETS: Final = {"ecs": (), "all": ("gcp", "azure")}
"""Which extras of the package a bundle holds."""
MOST_BYTES: Final = {"ecs": 10_000_000, "all": 40_000_000}
"""How large a zip may be. Lambda takes 50 MB; a small one starts faster."""
MOST_BYTECODE: Final = {"ecs": 5_000_000, "all": 10_000_000}
"""How much more, where the bytecode is in it."""
MOST_UNPACKED: Final = 250_000_000
"""Lambda's own limit for what is unpacked."""
LEFT_OUT: Final = frozenset({"boto3", "botocore", "s3transfer", "typer", "rich", "pyyaml"})
"""Lambda brings the first three; the others are the command line's."""
OWN_FOLDERS_LEFT_OUT: Final = ("push_pools/cli/", "push_pools/testing/", "push_pools/server/", "push_pools/examples/")
MACHINES: Final = {"arm64": "aarch64", "x86_64": "x86_64"}
GLIBC: Final = ("2_34", "2_28", "2_17")
"""Of Amazon Linux 2023, and older ones: wheels for any of them run."""
WHEN: Final = (1980, 1, 1, 0, 0, 0)
"""The time of every file in the zip: the first that a zip can name."""
COMPILE: Final = """
import py_compile, sys
for path in sys.stdin.read().splitlines():
    py_compile.compile(path, dfile="/var/task/" + path, doraise=True,
                       invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""


def main(arguments: list[str] | None = None) -> int:
    """Make a bundle and say what it is; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--set", default="ecs", choices=sorted(SETS), help="which clouds it can use")
    parser.add_argument("--arch", default=FUNCTIONS["architecture"], choices=sorted(MACHINES))
    parser.add_argument("--python", default=str(FUNCTIONS["runtime"]).removeprefix("python"), metavar="3.N")
    parser.add_argument("--out", type=Path, help="by default build/push-pools-SET-ARCH-pyVERSION.zip")
    parser.add_argument(
        "--wheels", type=Path, help="where wheels are kept; not empty, they are used and nothing is fetched"
    )
    given = parser.parse_args(arguments)
    if not re.fullmatch(r"3\.\d+", given.python):
        parser.error(f"--python {given.python!r} is not a version; write it as 3.13")
    out = given.out or ROOT / "build" / f"push-pools-{given.set}-{given.arch}-py{given.python.replace('.', '')}.zip"
    with tempfile.TemporaryDirectory(prefix="push-pools-bundle-") as scratch:
        folder, wheels = Path(scratch) / "bundle", given.wheels or Path(scratch) / "wheels"
        if not wheels.is_dir() or not any(wheels.iterdir()):
            download(given.set, given.arch, given.python, wheels)
        for wheel in sorted(wheels.glob("*.whl")):
            if _name(wheel.name.partition("-")[0]) not in LEFT_OUT:
                unpack(wheel, folder)
        add_package(folder)
        is_compiled = f"{sys.version_info.major}.{sys.version_info.minor}" == given.python
        if is_compiled:
            compile_all(folder)
        unpacked = pack(folder, out)
    data = out.read_bytes()
    said = {
        "path": str(out),
        "set": given.set,
        "architecture": given.arch,
        "runtime": f"python{given.python}",
        "bytes": len(data),
        "unpacked_bytes": unpacked,
        "bytecode": is_compiled,
        "sha256": hashlib.sha256(data).hexdigest(),
        "sha256_base64": base64.b64encode(hashlib.sha256(data).digest()).decode(),
    }
    print(json.dumps(said, indent=2))
    most = MOST_BYTES[given.set] + (MOST_BYTECODE[given.set] if is_compiled else 0)
    if len(data) > most or unpacked > MOST_UNPACKED:
        text = f"the bundle is larger than {most} bytes, or than {MOST_UNPACKED} unpacked; see which dependency grew"
        print(text, file=sys.stderr)
        return 1
    return 0


def requirements(set_: str) -> list[str]:
    """Return what the functions need of what the package needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = list(project["dependencies"])
    for extra in SETS[set_]:
        listed += project["optional-dependencies"][extra]
    return [each for each in listed if _name(each) not in LEFT_OUT]


def download(set_: str, arch: str, python: str, wheels: Path) -> None:
    """Fetch the wheels of a bundle for its processor and Python.

    Raises:
        SystemExit: One is not to be had; pip says which.
    """
    with tempfile.TemporaryDirectory(prefix="push-pools-pip-") as scratch:
        _download(_pip(Path(scratch)), set_, arch, python, wheels)


def _download(pip: list[str], set_: str, arch: str, python: str, wheels: Path) -> None:
    command = [*pip, "download", "-q", "--disable-pip-version-check", "--only-binary", ":all:"]
    command += ["--dest", str(wheels), "--implementation", "cp", "--python-version", python]
    for glibc in GLIBC:
        command += ["--platform", f"manylinux_{glibc}_{MACHINES[arch]}"]
    command += ["--platform", f"manylinux2014_{MACHINES[arch]}", "-c", str(ROOT / "constraints.txt")]
    _run([*command, *requirements(set_)])


def unpack(wheel: Path, folder: Path) -> None:
    """Unpack what of a wheel is imported; scripts, tests of others and type stubs are left out."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            target = re.sub(r"^[^/]+\.data/(?:purelib|platlib)/", "", name)
            if name.endswith("/") or ".data/" in target or not _is_needed(target):
                continue
            path = folder / target
            if not path.resolve().is_relative_to(folder.resolve()):
                raise SystemExit(f"{wheel.name} names a file outside itself: {name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(name))


def add_package(folder: Path) -> None:
    """Copy the package, and write the metadata by which its platforms are found."""
    for source in sorted((ROOT / "push_pools").rglob("*")):
        name = source.relative_to(ROOT).as_posix()
        if not source.is_file() or "__pycache__" in name or name.startswith(OWN_FOLDERS_LEFT_OUT):
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(source.read_bytes())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / f"push_pools-{project['version']}.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    lines = [
        line
        for group, entries in sorted(project["entry-points"].items())
        for line in (f"[{group}]", *(f"{name} = {target}" for name, target in sorted(entries.items())))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def compile_all(folder: Path) -> None:
    """Compile everything once, here, because Lambda's disk is read-only: it would compile at every cold start."""
    # In a process of its own with fixed hashes: else the order of constants that are sets would differ.
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))
    environ = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", COMPILE],
        cwd=folder,
        env=environ,
        input="\n".join(names),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"the bundle does not compile:\n{done.stderr}")


def pack(folder: Path, out: Path) -> int:
    """Write the zip, its files in order and all of one time; return how many bytes they have unpacked."""
    out.parent.mkdir(parents=True, exist_ok=True)
    total = 0
    with zipfile.ZipFile(out, "w") as archive:
        for path in sorted(folder.rglob("*"), key=lambda each: each.relative_to(folder).as_posix()):
            if not path.is_file():
                continue
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), WHEN)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            data = path.read_bytes()
            total += len(data)
            archive.writestr(entry, data, compresslevel=9)
    return total


def _is_needed(name: str) -> bool:
    if name.endswith((".pyi", ".pyc", ".exe", "/RECORD", "/py.typed")):
        return False
    # What nobody here imports: tests, benchmarks, bills of materials, and the pages of powertools for browsers.
    return not re.search(r"(^|/)(?:tests?|benchmarks|sboms|swagger_ui)/", name) or name.startswith("push_pools/")


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-").replace(".", "-")


def _pip(scratch: Path) -> list[str]:
    """Return how pip is called; an environment without one (made by uv) gets one beside it."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    _run([sys.executable, "-m", "venv", str(scratch / "pip")])
    return [str(scratch / "pip" / "bin" / "python"), "-m", "pip"]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}")


if __name__ == "__main__":
    sys.exit(main())
