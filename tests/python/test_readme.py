"""The README keeps its word: its code runs, its files exist, its commands are real."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text()
PAGES = [
    ROOT / "README.md",
    ROOT / "docs/linear.md",
    ROOT / "docs/limits.md",
    ROOT / "docs/benchmarks/linear.md",
]


def test_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert len([line for line in block.splitlines() if line.strip()]) <= 20
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})
    assert "bits per value" in capsys.readouterr().out


@pytest.mark.parametrize(
    "page", PAGES, ids=lambda p: p.name if p.parent.name != "benchmarks" else "benchmarks"
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_shell_commands_parse() -> None:
    from torchext.cli.main import parser

    (block,) = re.findall(r"## From the shell\n\n```bash\n(.*?)```", TEXT, re.S)
    for line in block.splitlines():
        words = shlex.split(re.split(r"\s[#>]", line)[0])
        assert words[0] == "torchext"
        parser().parse_args(words[1:])


def test_scripts_named_for_figures_exist() -> None:
    for page in PAGES:
        for module in re.findall(r"python -m ((?:benchmarks|training)[\w.]*)", page.read_text()):
            assert (ROOT / (module.replace(".", os.sep) + ".py")).exists(), module
