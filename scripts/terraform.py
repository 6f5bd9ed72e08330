"""Check `terraform/`: its format, and each module and example by `terraform init`, `validate` and `test`.

    python scripts/terraform.py                 every folder below terraform/ that has .tf files
    python scripts/terraform.py modules/service one of them

Providers come from where the CLI configuration in TF_CLI_CONFIG_FILE says, else from the usual registry. Where none
can be reached, or terraform is missing or too old, what needs them is skipped, and the reason is printed; the format
and the syntax are checked all the same. Nothing is left in the tree: terraform works on a copy. Needs the standard
library only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parent.parent
SIDE_BY_SIDE: Final = 2
"""How many folders are checked at once."""
LEAST: Final = (1, 11)
"""The first terraform whose tests can say what a plan knows."""
UNREACHABLE: Final = re.compile(
    r"could not connect to|failed to request discovery document|dial tcp|no such host|connection refused"
    r"|connection reset|network is unreachable|timeout|Client\.Timeout|proxyconnect|certificate"
)
"""What is said of a registry that does not answer. That it has no such provider is said otherwise, and is a mistake."""
QUERIES: Final = ("Failed to query available provider packages", "Failed to install provider")
NOT_FOUND: Final = "was not found in any of the search locations"
SKIPPED: Final = "SKIPPED"


class Broken(Exception):
    """Terraform refused something; the text is what it said."""


class Unreachable(Exception):
    """No provider can be had here; the text says why."""


def main(names: list[str] | None = None) -> int:
    """Check every folder, or those that are named; return the exit code."""
    reason = why_not()
    if reason:
        print(f"{SKIPPED}: {reason}")
        return 0
    unknown = [name for name in names or () if name not in folders()]
    if unknown:
        print(f"{unknown[0]} has no .tf files; known are {', '.join(folders())}", file=sys.stderr)
        return 2
    with copied() as copy:
        failed = _check_format(copy)
        reason = ""
        ready = []
        for name in names or folders():
            try:
                init(copy, name, offline=bool(reason))
                ready.append(name)
            except Unreachable as error:
                reason = reason or str(error)
            except Broken as error:
                print(f"terraform/{name}: FAILED\n{error}")
                failed += 1
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            failed += sum(pool.map(lambda name: _check(copy, name), ready))
    if reason:
        print(f"{SKIPPED}: validate and test of {len(names or folders()) - len(ready)} folders: {reason}")
    return int(failed > 0)


def why_not() -> str:
    """Return why terraform cannot be run here; empty when it can."""
    binary = shutil.which("terraform")
    if binary is None:
        return "terraform is not installed"
    said = subprocess.run([binary, "version"], env=environ(), capture_output=True, text=True, check=False).stdout
    found = re.match(r"Terraform v(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < LEAST:
        version = said.partition("\n")[0] or "terraform"
        return f"{version} is older than {'.'.join(map(str, LEAST))}"
    return ""


def folders() -> list[str]:
    """Return every folder of configuration, relative to `terraform/`: modules, their parts, and examples."""
    base = ROOT / "terraform"
    found = {path.parent.relative_to(base) for path in base.rglob("*.tf")}
    return sorted(each.as_posix() for each in found if ".terraform" not in each.parts and "tests" not in each.parts)


def environ() -> dict[str, str]:
    """Return the environment of terraform: quiet, asking nobody, and with this machine's settings of AWS left out."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "TF_VAR_", "TF_CLI_ARGS", "TF_DATA_DIR", "TF_WORKSPACE", "TF_LOG"))
    }
    kept |= {"TF_IN_AUTOMATION": "1", "TF_INPUT": "0", "CHECKPOINT_DISABLE": "1"}
    if not kept.get("TF_CLI_CONFIG_FILE"):
        kept.pop("TF_CLI_CONFIG_FILE", None)
        if "TF_PLUGIN_CACHE_DIR" not in kept:  # The provider of AWS is large, and each folder would fetch it again.
            cache = ROOT / "build" / "terraform-providers"
            cache.mkdir(parents=True, exist_ok=True)
            kept["TF_PLUGIN_CACHE_DIR"] = str(cache)
            kept["TF_PLUGIN_CACHE_MAY_BREAK_DEPENDENCY_LOCK_FILE"] = "1"
    return kept


@contextmanager
def copied() -> Iterator[Path]:
    """Give a copy of the tree in which terraform may write; all but `terraform/` is only linked."""
    with tempfile.TemporaryDirectory(prefix="push-pools-terraform-") as scratch:
        copy = Path(scratch)
        ignored = shutil.ignore_patterns(".terraform", ".terraform.lock.hcl", "*.tfstate*")
        shutil.copytree(ROOT / "terraform", copy / "terraform", ignore=ignored)
        for each in ("infra", "examples", "build"):
            if (ROOT / each).is_dir():
                (copy / each).symlink_to(ROOT / each)
        yield copy


def init(copy: Path, name: str, *, offline: bool = False) -> None:
    """Fetch the providers of a folder of the copy; `offline` only reads its configuration.

    Raises:
        Unreachable: There is nothing wrong with the configuration, but providers are not to be had.
        Broken: The configuration is wrong, or asks for a provider that does not exist.
    """
    options = ["-backend=false", "-input=false"]
    if offline:
        nothing = copy / "no-providers"
        nothing.mkdir(exist_ok=True)
        options.append(f"-plugin-dir={nothing}")
    try:
        run(copy, name, "init", *options)
    except Broken as error:
        reason = why_unreachable(str(error), offline=offline)
        if reason:
            raise Unreachable(reason) from None
        raise


def why_unreachable(said: str, *, offline: bool = False) -> str:
    """Return why providers cannot be had, from what `init` said; empty when something else is wrong."""
    errors = [" ".join(each.split()) for each in re.split(r"(?m)^.?\s*Error: ", said)[1:]]
    if not errors or not all(each.startswith(QUERIES) for each in errors):
        return ""
    if not all(UNREACHABLE.search(each) or (offline and NOT_FOUND in each) for each in errors):
        return ""
    sentence = errors[0].partition(": ")[2].partition(" To see which modules")[0] or errors[0]
    return f"no provider can be reached: {sentence[:200]}"


def run(copy: Path, name: str, command: str, *options: str) -> str:
    """Run a command of terraform in a folder of the copy and return what it printed.

    Raises:
        Broken: It failed.
    """
    chdir = f"-chdir={copy / 'terraform' / name}"
    done = subprocess.run(
        ["terraform", chdir, command, "-no-color", *options],
        env=environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Broken(done.stdout.strip())
    return done.stdout


def _check_format(copy: Path) -> int:
    started = time.monotonic()
    try:
        run(copy, ".", "fmt", "-check", "-recursive", "-diff")
    except Broken as error:
        print(f"terraform/: FAILED, run terraform fmt -recursive terraform\n{error}")
        return 1
    print(f"terraform/: format {time.monotonic() - started:.1f} s")
    return 0


def _check(copy: Path, name: str) -> int:
    """Validate and test one folder; return 1 if it failed."""
    times = []
    has_tests = any((copy / "terraform" / name).glob("tests/*.tftest.*")) or any(
        (copy / "terraform" / name).glob("*.tftest.*")
    )
    try:
        for command in ("validate", "test") if has_tests else ("validate",):
            started = time.monotonic()
            said = run(copy, name, command)
            passed = re.search(r"(\d+) passed", said)
            count = f" ({passed[0]})" if command == "test" and passed else ""
            times.append(f"{command}{count} {time.monotonic() - started:.1f} s")
    except Broken as error:
        print(f"terraform/{name}: FAILED\n{error}", flush=True)
        return 1
    print(f"terraform/{name}: {', '.join(times)}{'' if has_tests else ', no tests'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
