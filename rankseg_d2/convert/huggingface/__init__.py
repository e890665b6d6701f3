"""Folders of transformers' Mask2Former and MaskFormer: to ours, and back."""

from .folder import Folder, find_folder
from .to_ours import Converted, config_of, convert_folder, differing_keys
from .to_theirs import write_folder

__all__ = [
    "Converted",
    "Folder",
    "config_of",
    "convert_folder",
    "differing_keys",
    "find_folder",
    "write_folder",
]
