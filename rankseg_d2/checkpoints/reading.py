"""Read weight files without running code that they may hold."""

import mmap
import os
import pickle
import re
import tarfile
import zipfile
from typing import Any
from urllib.parse import parse_qs, urlparse

import numpy as np
import torch
from iopath.common.file_io import PathManager

from . import safe_pickle
from .safe_pickle import Refusal, untrusted

_FETCH_AGAIN = "Remove it and download or copy it again."
_DETECTRON2_HOST = "https://dl.fbaipublicfiles.com/detectron2/"  # of detectron2://

_OF_FOLDERS = "model.safetensors", "pytorch_model.bin"  # of transformers

_VIT = "Transformer/encoder_norm/scale"  # an array of each ViT's .npz file

_LEGACY_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the first number in files of torch < 1.6


def read_checkpoint(path: str | os.PathLike, matching_heuristics: bool = False) -> dict:
    """The content of a weight file in the form of detectron2's checkpointer: weights in "model".

    Files of Caffe2 and pycls, and others if `matching_heuristics`, get "matching_heuristics": the
    checkpointer matches their names to the model's by suffix.
    """
    data = read_weights(path)
    if "model" in data:
        checkpoint = data
    elif isinstance(data.get("state_dict_ema"), dict):  # timm's; averages are what is published
        checkpoint = {"model": data["state_dict_ema"]}
    elif isinstance(data.get("state_dict"), dict):  # mmsegmentation's
        checkpoint = {"model": data["state_dict"]} | _class_names(data.get("meta"))
    elif "model_state" in data and os.fspath(path).endswith(".pyth"):
        checkpoint = {"model": data["model_state"], "__author__": "pycls"}
    elif file_format(path) == "pickle":
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


def _class_names(meta: Any) -> dict[str, list[str]]:
    """{"class_names": names} of the facts in a file of mmsegmentation, {} without them."""
    if not isinstance(meta, dict):
        return {}
    facts = meta.get("dataset_meta") or {}
    names = meta.get("CLASSES") or facts.get("classes") or facts.get("CLASSES")
    return {"class_names": list(map(str, names))} if names else {}


def read_weights(path: str | os.PathLike) -> dict:
    """The content of a .pkl, .pth, .safetensors or .npz file, which its first bytes tell."""
    path = os.fspath(path)
    read = _READERS[file_format(path)]
    try:
        data = read(path)
    except Refusal as refusal:
        raise ValueError(f"{path} {refusal}") from None
    except Exception as error:  # damaged bytes make parsers raise anything
        reason = (str(error).strip() or "the file ends too early").splitlines()[0]
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}: {reason}): it is truncated, damaged "
            f"or not a weight file. {_FETCH_AGAIN}"
        ) from error
    if not isinstance(data, dict):
        raise ValueError(
            f"{path} holds a {type(data).__name__} and not a dict of names and arrays, so it is "
            "not a weight file. Give a .pth, .pkl or .safetensors file with named weights."
        )
    return data


def is_whole(path: str | os.PathLike) -> bool:
    """Whether the weight file exists, complete and undamaged."""
    try:
        if file_format(path) != "zip":
            return bool(read_weights(path))
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # damaged bytes make zipfile raise anything
        return False


def locate(path: str | os.PathLike, path_manager: PathManager) -> tuple[str, bool]:
    """The local file of a path, address or detectron2:// name, downloaded if needed.

    Of a folder as transformers writes it, the file of its weights.

    The second value is whether the name ends in "?matching_heuristics=True".
    """
    name, _, query = os.fspath(path).partition("?")
    options = parse_qs(query)
    heuristics = options.pop("matching_heuristics", ["False"]) == ["True"]
    if options:
        raise ValueError(
            f"{path}: only matching_heuristics=True may follow '?', but {', '.join(options)} does. "
            "Remove it, or download the file and give its local path."
        )
    if os.path.isdir(name):
        return weights_in(name), heuristics
    if os.path.isfile(name):
        return name, heuristics
    try:
        local = path_manager.get_local_path(name)
    except (OSError, KeyError, RuntimeError) as error:
        raise FileNotFoundError(
            f"{name} could not be downloaded ({error!r}). Download it by other means to "
            f"{_cache_path(name)}, or set MODEL.WEIGHTS to its local path."
        ) from error
    if not os.path.isfile(local):
        raise FileNotFoundError(
            f"The weight file {os.path.abspath(local)} does not exist. Correct MODEL.WEIGHTS, or "
            'leave it empty ("") to start from random weights.'
        )
    return local, heuristics


def weights_in(folder: str | os.PathLike) -> str:
    """The file of weights in a model's folder, as transformers writes it."""
    names = [name for name in _OF_FOLDERS if os.path.isfile(os.path.join(folder, name))]
    if names:
        return os.path.join(folder, names[0])
    if any(os.path.isfile(os.path.join(folder, f"{name}.index.json")) for name in _OF_FOLDERS):
        raise ValueError(
            f"{folder} has its weights in several files. Load and save it once with transformers: "
            "model.save_pretrained(folder, max_shard_size='100GB')"
        )
    raise FileNotFoundError(
        f"{folder} is a folder, not a weight file, and has no {' or '.join(_OF_FOLDERS)}. Correct "
        "the path."
    )


def _cache_path(name: str) -> str:
    """Where iopath keeps the download of a file."""
    from iopath.common.file_io import get_cache_dir

    if name.startswith("detectron2://"):
        name = _DETECTRON2_HOST + name.removeprefix("detectron2://")
    url = urlparse(name)
    inside = url.path.lstrip("/") if url.scheme in ("http", "https") else ""
    return os.path.join(get_cache_dir(), inside)


def file_format(path: str | os.PathLike) -> str:
    """The key in _READERS, by the first bytes of the file."""
    if not os.path.isfile(path):
        found = "is a folder, not a weight file" if os.path.isdir(path) else "does not exist"
        raise FileNotFoundError(f"{path} {found}. Correct the path.")
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        raise ValueError(f"{path} is empty. {_FETCH_AGAIN}")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path} is a git-lfs pointer and not the weight file itself. Run `git lfs pull` in "
            "its repository, or download the file from its web address."
        )
    if head.lstrip().startswith(b"<"):
        raise ValueError(
            f"{path} is a web page (HTML), not a weight file: the server sent a login, consent or "
            f"error page. {_FETCH_AGAIN}"
        )
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head[5:9] == b"\0\0\0{":  # a header length below 2**40, then the header, which is JSON
        return "safetensors"
    return "legacy torch" if _LEGACY_TORCH in head else "pickle"


def _check_arrays(path: str | os.PathLike, weights: object) -> None:
    if not isinstance(weights, dict):
        raise ValueError(
            f"{path} has a {type(weights).__name__} under 'model', where a dict of names and "
            "arrays should be. Give a weight file."
        )
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, (np.ndarray, torch.Tensor)):
            raise ValueError(
                f"{path} holds a {type(value).__name__} under {name!r}, where weights should be. "
                "Save the file again with only the weights: torch.save({'model': state_dict}, …)"
            )


def _read_zip(path: str) -> Any:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if entries and all(entry.filename.endswith(".npy") for entry in entries):
        return _read_npz(path, entries)
    if not any(entry.filename.endswith("/data.pkl") for entry in entries):
        raise Refusal("is a zip archive, but not one of torch's weights. Unpack it first.")
    if sum(entry.file_size for entry in entries) > os.path.getsize(path):
        raise Refusal("is a zip archive that unpacks to more bytes; torch never writes one")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        # torch < 2.6 runs TorchScript in spite of weights_only. We search the bytes because zipfile
        # and torch may read different lists of files from an ill-formed archive.
        if content.find(b"constants.pkl") >= 0:
            raise Refusal("is a TorchScript program, not weights. Save its state_dict() instead.")
    return _read_torch(path)


def _read_npz(path: str, entries: list[zipfile.ZipInfo]) -> dict[str, torch.Tensor]:
    """The arrays of a ViT's file, as AugReg's are; other .npz files are refused."""
    if not any(entry.filename.endswith(f"{_VIT}.npy") for entry in entries):
        raise Refusal(
            f"is an .npz file, but not of a ViT's weights, which would have an array {_VIT}. Give "
            "one of AugReg's files, or a .pth or .safetensors file."
        )
    if sum(entry.file_size for entry in entries) > 2 * os.path.getsize(path):
        raise Refusal("is an .npz file that unpacks to more than twice its bytes; weights do not")
    with np.load(path, allow_pickle=False) as arrays:
        found = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return {name: x.float() if x.dtype == torch.float16 else x for name, x in found.items()}


def _read_legacy(path: str) -> Any:
    if tarfile.is_tarfile(path):  # torch < 2.6 unpacks it unchecked
        raise Refusal("is a tar archive, not a weight file. Unpack it first.")
    return _read_torch(path)


def _read_torch(path: str) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if asked is None:
            raise
        raise untrusted(asked[1]) from error


def _read_safetensors(path: str) -> dict:
    from safetensors.torch import load_file

    return load_file(path)


def _read_pickle(path: str) -> Any:
    with open(path, "rb") as file:
        return safe_pickle.load(file)


_READERS = {
    "zip": _read_zip,
    "legacy torch": _read_legacy,
    "safetensors": _read_safetensors,
    "pickle": _read_pickle,
}
