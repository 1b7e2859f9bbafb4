#!/usr/bin/env bash
# Creates .venv with torch and the development tools. Idempotent: does nothing when it is up to date.
# TORCHEXT_PYTHON=/path/to/python uses that environment instead.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "${TORCHEXT_PYTHON:-}" ] && [ "$TORCHEXT_PYTHON" != "$PWD/.venv/bin/python" ]; then
  echo "setup: using $TORCHEXT_PYTHON"
  exit 0
fi
stamp=.venv/.setup-stamp
if [ -f "$stamp" ] && [ "$stamp" -nt pyproject.toml ]; then exit 0; fi
echo "setup: creating .venv (torch with its CUDA libraries is several GB; this takes a few minutes)"
python3 -m venv .venv
.venv/bin/python -m pip install -q uv
.venv/bin/uv pip install -q --python .venv/bin/python "torch==2.11.0" numpy setuptools wheel ".[linear,data,viz,progress,dev,docs]" --no-build-isolation
touch "$stamp"
