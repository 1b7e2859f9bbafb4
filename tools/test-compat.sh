#!/usr/bin/env bash
# test-compat.sh PYTHON: the binaries that are in torchext/ now, built with the torch of PYTHON, must
# import and pass the op tests under the newest torch on the package index. Nothing is rebuilt.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
environment=.venv-compat
if [ ! -x "$environment/bin/python" ]; then
  echo "test-compat: creating $environment"
  "$python" -m venv "$environment"
fi
echo "test-compat: installing the newest torch, a few minutes"
packages=(torch numpy scikit-learn safetensors pyarrow pytest pytest-xdist pytest-timeout hypothesis expecttest ml_dtypes)
if command -v uv > /dev/null; then
  uv pip install -q --upgrade --python "$environment/bin/python" "${packages[@]}"
else
  "$environment/bin/python" -m pip install -q --upgrade "${packages[@]}"
fi
"$environment/bin/python" - <<'P'
import torch

import torchext
from torchext import _build

print(f"built with torch {_build.BUILT_TORCH}, running {torch.__version__}")
if torch.__version__.split("+")[0] == _build.BUILT_TORCH.split("+")[0]:
    raise SystemExit("no newer torch was installed: this run proves nothing")
P
tests=()
for name in stream_v1 edge_cases completeness quantize quantize_statistics quantize_torch encode_kernels sgd_kernels products store store_format loading symbols; do
  for file in tests/python/test_"$name".py; do [ -e "$file" ] && tests+=("$file"); done
done
"$environment/bin/python" -m pytest -q -n "${JOBS:-2}" "${tests[@]}"
