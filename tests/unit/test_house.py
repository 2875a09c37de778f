"""The house rules that no linter knows: what is declared is what is used, and what is forbidden is nowhere."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import meshcron
from meshcron.config import KEYS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCES = {str(file.relative_to(ROOT)): file.read_text() for file in sorted((ROOT / "meshcron").rglob("*.py"))}
SHELL = sorted([*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run"])

DISTRIBUTIONS = {
    "cron_descriptor": "cron-descriptor",
    "crontab": "python-crontab",
    "prometheus_client": "prometheus-client",
}
DISTRIBUTIONS |= {"yaml": "PyYAML", "zmq": "pyzmq"}
"""Libraries whose package has another name."""

FORBIDDEN = {
    "code from data": r"\bpickle\b|\bmarshal\.load|(?<![\w.])(eval|exec)\(|\byaml\.(load|full_load|unsafe_load)\(",
    "a shell string of our own making": r"\bshell=True|\bos\.(system|popen)\(|\bsubprocess\.getoutput",
    "left open": r"\b(TODO|FIXME|XXX|HACK)\b",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_forbidden_is_nowhere(what: str) -> None:
    """No code from data, no shell strings, nothing left open (FAULTS, checklist)."""
    found = [name for name, source in SOURCES.items() if re.search(FORBIDDEN[what], source)]
    assert found == []


@pytest.mark.parametrize(
    "sample", ["import pickle", "x = eval(y)", "yaml.load(f)", "run(c, shell=True)", "os.system(c)", "# TODO: later"]
)
def test_forbidden_is_found(sample: str) -> None:
    """The patterns above catch what they are for."""
    assert any(re.search(pattern, sample) for pattern in FORBIDDEN.values())


def calls(source: str) -> Iterator[str]:
    """The names of all functions and methods that a source calls."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def test_tasks_are_made_in_one_place() -> None:
    """A task has a name and its failure is heard: only runtime/tasks.py makes them."""
    makers = {name for name, source in SOURCES.items() if {"create_task", "ensure_future"} & set(calls(source))}
    assert makers <= {"meshcron/runtime/tasks.py"}


@pytest.mark.parametrize("name", SOURCES)
def test_module_says_what_it_is_for(name: str) -> None:
    """A docstring first, unless the file is empty."""
    tree = ast.parse(SOURCES[name])
    assert not tree.body or ast.get_docstring(tree)


def test_every_library_is_declared() -> None:
    """What is imported can be installed: each library is a dependency or in an extra."""
    declared = {
        re.split(r"[>=<\[ ]", requirement)[0].lower()
        for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
        for requirement in group
    }
    imported = {
        module.split(".")[0]
        for source in SOURCES.values()
        for node in ast.walk(ast.parse(source))
        for module in (
            [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None)]
        )
        if module
    }
    foreign = imported - set(sys.stdlib_module_names) - {"meshcron"}
    assert {DISTRIBUTIONS.get(name, name).lower() for name in foreign} <= declared


def test_version_has_one_place() -> None:
    """pyproject.toml takes it from the package, and the changelog knows it or is ahead of it."""
    assert "version" in PROJECT["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", meshcron.__version__)
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize(("version", "code", "said"), [("66.1.1", 1, "setuptools 77 or newer"), ("77.0.3", 0, "built")])
def test_old_setuptools_is_told_so(tmp_path: Path, version: str, code: int, said: str) -> None:
    """An old setuptools would install an empty package named UNKNOWN; setup.py, two lines long, stops it."""
    lines = (ROOT / "setup.py").read_text().splitlines()
    assert len(lines) == 2
    (tmp_path / "setuptools.py").write_text(f"__version__ = {version!r}\ndef setup(): print('built')\n")
    done = subprocess.run(
        [sys.executable, ROOT / "setup.py"], env={"PYTHONPATH": tmp_path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert said in done.stdout + done.stderr


@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.name)
def test_script_is_strict_bash(script: Path) -> None:
    """Executable, parsed by bash, stopped by its first error."""
    text = script.read_text()
    assert os.access(script, os.X_OK)
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    subprocess.run(["bash", "-n", script], check=True)


def test_readme_names_what_is_there() -> None:
    """Each script and each key that the README and CONTRIBUTING name exists."""
    text = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"\bscripts/([a-z-]+)", text))
    assert {"quickstart", "test", "check"} <= named <= {path.name for path in SHELL}
    for variable in re.findall(r"\bMESHCRON_[A-Z_]+", text):
        assert variable in {key.variable for key in KEYS.values()} | {"MESHCRON_KEY", "MESHCRON_SEEDS"}


def test_whoever_leaves_hands_over_first() -> None:
    """Switched off, one of two machines may take the only vote along."""
    text = (ROOT / "README.md").read_text()
    steps = [line.split(" #")[0].strip() for line in text.partition("## How to leave\n\n```bash\n")[2].splitlines()[:5]]
    assert steps[:4] == [
        "meshcron leave",
        "meshcron members",
        "meshcron ls --json > jobs.json",
        "systemctl disable --now meshcron",
    ]


def test_promise_is_in_the_readme() -> None:
    """P1 to P6, each with how it is tested."""
    assert re.findall(r"^\| \*\*(P\d)", (ROOT / "README.md").read_text(), re.MULTILINE) == [
        "P1",
        "P2",
        "P3",
        "P4",
        "P5",
        "P6",
    ]


def test_service_leaves_the_jobs_alone() -> None:
    """The unit stops only the agent, and takes nothing away that run_as_user needs."""
    lines = (ROOT / "conf" / "meshcron.service").read_text().splitlines()
    active = dict(line.split("=", maxsplit=1) for line in lines if "=" in line and not line.startswith("#"))
    assert active["KillMode"] == "process"
    assert not {"NoNewPrivileges", "CapabilityBoundingSet", "User", "ProtectSystem", "PrivateTmp"} & active.keys()


def test_a_start_pays_for_no_library_that_it_may_not_need() -> None:
    """Each takes some MiB and tens of milliseconds: mDNS is for agents that look around, words of a
    schedule for whoever asks."""
    later = ["zeroconf", "cron_descriptor", "crontab", "yaml"]
    program = f"import sys, meshcron.main; print(*sorted(sys.modules.keys() & {set(later)!r}))"
    found = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True)
    assert found.split() == []
