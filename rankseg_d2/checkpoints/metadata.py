"""What a checkpoint says beside its weights: plain JSON types under one key.

In a .pth file it is a dict under "rankseg", in a .safetensors file the same dict as JSON text, in
the metadata of the header.
"""

import json
import os
import shutil
from typing import Any, BinaryIO

import torch

from ..files import replacing_durably
from .reading import file_format, read_checkpoint

METADATA = "rankseg"
_HEADER = "__metadata__"  # of the safetensors format
_ALIGNMENT = 8


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """What the file says beside its weights; {} if it says nothing."""
    if file_format(path) == "safetensors":
        found = _said_in_header(path)
    else:
        found = read_checkpoint(path).get(METADATA, {})
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise ValueError(f"{path} has a {kind} under {METADATA!r}, which should be a dict.")
    return found


def check_storable(path: str | os.PathLike) -> None:
    """Raise the error of a file that `write_metadata` cannot change, before hours of work."""
    if file_format(path) == "pickle":
        raise ValueError(
            f"{path} is a pickle file, which is only read; give a .pth or .safetensors file of "
            "the model."
        )
    folder = os.path.dirname(os.path.realpath(path))
    if not os.access(folder, os.W_OK):
        raise PermissionError(
            f"{folder}, the folder of {os.path.basename(path)}, cannot be written; copy the file "
            "to a folder of yours."
        )


def write_metadata(path: str | os.PathLike, **entries: Any) -> None:
    """Set entries, of plain JSON types, beside the weights; all the rest of the file stays.

    The file is replaced when the new one is whole on the disk.
    """
    check_storable(path)
    content = read_metadata(path) | json.loads(json.dumps(entries, allow_nan=False))
    path = os.path.realpath(path)  # a link stays a link
    if file_format(path) == "safetensors":
        _rewrite_header(path, content)
        return
    checkpoint = read_checkpoint(path) | {METADATA: content}
    with replacing_durably(path) as file:
        torch.save(checkpoint, file)


def _said_in_header(path: str | os.PathLike) -> Any:
    try:
        with open(path, "rb") as file:
            return json.loads(_read_header(file).get(_HEADER, {}).get(METADATA, "{}"))
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"the header of {path} cannot be read: it is truncated or damaged. Remove it and "
            "download or copy it again."
        ) from error


def _read_header(file: BinaryIO) -> dict:
    """The header of a safetensors file; the file stands at the first tensor afterwards."""
    return json.loads(file.read(int.from_bytes(file.read(8), "little")))


def _rewrite_header(path: str, content: dict) -> None:
    with open(path, "rb") as source:
        header = _read_header(source)
        header[_HEADER] = header.get(_HEADER, {}) | {METADATA: json.dumps(content)}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        with replacing_durably(path) as file:
            file.write(len(text).to_bytes(8, "little") + text)
            shutil.copyfileobj(source, file, 2**20)
