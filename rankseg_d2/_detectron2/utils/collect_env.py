"""What a run stands on, for the first lines of its log."""

import sys
from importlib import metadata

import torch
from tabulate import tabulate

__all__ = ["collect_env_info"]

_PACKAGES = ("torchvision", "timm", "fvcore", "iopath", "numpy", "Pillow", "pycocotools")


def collect_env_info() -> str:
    """A table of versions and devices; it imports nothing and starts no process."""
    outer = sys.modules[__name__.partition(".")[0]]
    rows = [
        ("detectron2", f"embedded subset of {outer.__name__} {outer.__version__}"),
        ("Python", sys.version.replace("\n", "")),
        ("sys.platform", sys.platform),
        ("PyTorch", torch.__version__),
        ("CUDA of PyTorch", torch.version.cuda or "none"),
        ("GPU available", str(torch.cuda.is_available())),
    ]
    if torch.cuda.is_available():
        rows += [
            (f"GPU {i}", torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())
        ]
    rows += [(package, _version(package)) for package in _PACKAGES]
    return tabulate(rows)


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
