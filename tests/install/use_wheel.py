"""Runs in an environment that has the wheel and torch and nothing else: use_wheel.py ROOT VERSION."""

import sys
from pathlib import Path

import torch

import torchext

root, version = Path(sys.argv[1]), sys.argv[2]
assert not Path(torchext.__file__).is_relative_to(root), (
    f"imported from the tree: {torchext.__file__}"
)
assert torchext.__version__ == version

for module in ("sklearn", "matplotlib", "pyarrow", "tqdm"):
    try:
        __import__(module)
    except ImportError:
        continue
    raise AssertionError(f"{module} is here: this environment is not clean")

key = torchext.random.key_from_seed(7)
assert torch.equal(torchext.random.split(key, 2)[1], torchext.random.fold_in(key, 1))
try:
    torchext.random.split(key, -1)
except RuntimeError as error:
    assert str(error).startswith("torchext::split: n must be in [0, 4294967295], got -1"), error
else:
    raise AssertionError("a negative count was accepted")

if hasattr(torchext, "quantize"):
    x = torch.linspace(-1, 1, 1001)
    codes = torchext.quantize(x, 4, key=key)
    assert (codes.dequantize() - x).abs().max() <= 2 / 14

for library in Path(torchext.__file__).parent.glob("*.so"):
    text = library.read_bytes()
    for folder in (str(root), "site-packages"):
        assert folder.encode() not in text, f"{library.name} names {folder}"
print(f"torchext {torchext.__version__} from a wheel, {torchext.cpu_isa()}")
