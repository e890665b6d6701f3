"""Weight files: reading one runs no code, whatever it holds."""

import mmap
import os
import pickle
import re
import tarfile
import zipfile
from urllib.parse import parse_qs, urlparse

import numpy as np
import torch

from . import safe_pickle
from .safe_pickle import Refusal, untrusted

FETCH_AGAIN = "remove it and download or copy it again"
DETECTRON2_HOST = "https://dl.fbaipublicfiles.com/detectron2/"  # what detectron2:// stands for

_LEGACY_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number that torch < 1.6 wrote first


def read_checkpoint(path, matching_heuristics=False) -> dict:
    """A weight file as detectron2's checkpointer wants it: the weights are under "model".

    Caffe2 files and pycls files, and all others if asked, get "matching_heuristics": their names
    are matched to the model's by suffix.
    """
    data = read_weights(path)
    if "model" in data:
        checkpoint = data
    elif "model_state" in data and os.fspath(path).endswith(".pyth"):
        checkpoint = {"model": data["model_state"], "__author__": "pycls"}
    elif _file_format(path) == "pickle":
        checkpoint = {"model": data.get("blobs", data), "__author__": "Caffe2"}
    else:
        checkpoint = {"model": data}
    if matching_heuristics or checkpoint.get("__author__") in ("pycls", "Caffe2"):
        checkpoint["matching_heuristics"] = True
    _check_arrays(path, checkpoint["model"])
    if checkpoint.get("__author__") == "Caffe2":
        weights = checkpoint["model"].items()
        checkpoint["model"] = {name: x for name, x in weights if not name.endswith("_momentum")}
    return checkpoint


def read_weights(path) -> dict:
    """The content of a .pkl, .pth or .safetensors file; its bytes say which it is, not its name."""
    path = os.fspath(path)
    read = _READERS[_file_format(path)]
    try:
        data = read(path)
    except Refusal as refusal:
        raise ValueError(f"{path} {refusal}") from None
    except Exception as error:  # what damaged bytes make of a parser is beyond listing
        reason = (str(error).strip() or "the file ends too early").splitlines()[0]
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}: {reason}): it is truncated, damaged "
            f"or not a weight file; {FETCH_AGAIN}"
        ) from error
    if not isinstance(data, dict):
        raise ValueError(
            f"{path} holds a {type(data).__name__} and not a dict of names and arrays, so it is "
            "not a weight file; give one of .pth, .pkl or .safetensors with named weights"
        )
    return data


def is_whole(path) -> bool:
    """Whether the weight file is there, complete and undamaged."""
    try:
        if _file_format(path) != "zip":
            return bool(read_weights(path))
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # damaged bytes make zipfile raise whatever it can
        return False


def locate(path, path_manager) -> tuple[str, bool]:
    """The local file of a path, address or detectron2:// name, downloaded where needed.

    The second value tells whether the name ends in "?matching_heuristics=True".
    """
    name, _, query = os.fspath(path).partition("?")
    options = parse_qs(query)
    heuristics = options.pop("matching_heuristics", ["False"]) == ["True"]
    if options:
        raise ValueError(
            f"{path}: what may follow '?' is matching_heuristics=True, but {', '.join(options)} "
            "came; take it away, or download the file and give its local path"
        )
    if os.path.isfile(name):
        return name, heuristics
    try:
        local = path_manager.get_local_path(name)
    except (OSError, KeyError, RuntimeError) as error:
        raise FileNotFoundError(
            f"{name} could not be fetched ({error!r}); bring the file here by other means, to "
            f"{_cache_place(name)}, or set MODEL.WEIGHTS to its local path"
        ) from error
    if not os.path.isfile(local):
        raise FileNotFoundError(
            f"there is no weight file {os.path.abspath(local)}; correct MODEL.WEIGHTS, or leave "
            'it empty ("") to start from random weights'
        )
    return local, heuristics


def _cache_place(name):
    """Where iopath looks for a downloaded file before it downloads."""
    from iopath.common.file_io import get_cache_dir

    if name.startswith("detectron2://"):
        name = DETECTRON2_HOST + name.removeprefix("detectron2://")
    url = urlparse(name)
    inside = url.path.lstrip("/") if url.scheme in ("http", "https") else ""
    return os.path.join(get_cache_dir(), inside)


def _file_format(path):
    """One of the keys of _READERS, by the first bytes."""
    if not os.path.isfile(path):
        found = "is a folder, not" if os.path.isdir(path) else "does not exist as"
        raise FileNotFoundError(f"{path} {found} a weight file; correct the path")
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        raise ValueError(f"{path} is empty; {FETCH_AGAIN}")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path} is a git-lfs pointer and not the weight file itself; run `git lfs pull` in "
            "its repository, or download the file by its web address"
        )
    if head.lstrip().startswith(b"<"):
        raise ValueError(
            f"{path} is a web page (HTML), not a weight file: the download was answered by a "
            f"login, consent or error page; {FETCH_AGAIN}"
        )
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head[5:9] == b"\0\0\0{":  # a header length below 2**40, then the header, which is JSON
        return "safetensors"
    return "legacy torch" if _LEGACY_TORCH in head else "pickle"


def _check_arrays(path, weights):
    if not isinstance(weights, dict):
        raise ValueError(
            f"{path} has a {type(weights).__name__} under 'model', where a dict of names and "
            "arrays should be; give a file of weights"
        )
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, (np.ndarray, torch.Tensor)):
            raise ValueError(
                f"{path} holds a {type(value).__name__} under {name!r}, where weights should be; "
                "save the file again with the weights alone: torch.save({'model': state_dict}, …)"
            )


def _read_zip(path):
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if not any(entry.filename.endswith("/data.pkl") for entry in entries):
        raise Refusal("is a zip archive without weights of torch in it; unpack it first")
    if sum(entry.file_size for entry in entries) > os.path.getsize(path):
        raise Refusal("is a zip archive that grows when it is unpacked; torch writes none such")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        # torch < 2.6 runs TorchScript even where weights_only is asked for. The bytes are searched
        # since zipfile and torch need not agree on what an ill-formed archive lists.
        if content.find(b"constants.pkl") >= 0:
            raise Refusal("is a TorchScript program, not weights; save its state_dict() instead")
    return _read_torch(path)


def _read_legacy(path):
    if tarfile.is_tarfile(path):  # torch < 2.6 unpacks it without asking what is in it
        raise Refusal("is a tar archive, not a weight file; unpack it first")
    return _read_torch(path)


def _read_torch(path):
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if asked is None:
            raise
        raise untrusted(asked[1]) from error


def _read_safetensors(path):
    from safetensors.torch import load_file

    return load_file(path)


def _read_pickle(path):
    with open(path, "rb") as file:
        return safe_pickle.load(file)


_READERS = {
    "zip": _read_zip,
    "legacy torch": _read_legacy,
    "safetensors": _read_safetensors,
    "pickle": _read_pickle,
}
