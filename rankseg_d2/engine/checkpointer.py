"""The checkpointer of our trainer: it reads safely, saves whole files and finds the newest one."""

import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from torch import nn

from ..checkpoints import adapt, differences, is_whole, locate, read_checkpoint, rename, table
from ..files import replacing_durably

_PLAIN = {torch.Tensor, torch.nn.Parameter, str, bytes, bool, int, float, complex, type(None)}


class Checkpointer(DetectionCheckpointer):
    """detectron2's checkpointer, on both engines made safe against bad files and sudden ends.

    A file that is not the model's own is adapted to it (`checkpoints/adapting.py`), which one table
    in the log tells. `class_names` are those that the model predicts; they are saved too, so that
    a model for other classes can take over the rows of those that both have.
    """

    _match_by_suffix = False
    _resumes = False
    _file = ""

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        class_names: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, save_dir, **options)
        self.class_names = class_names

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Go on from this run's last checkpoint, which must fit exactly, or else load `path`."""
        self._resumes = resume and self.has_checkpoint()
        try:
            return super().resume_or_load(path, resume=resume)
        finally:
            self._resumes = False

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if path:
            path, self._match_by_suffix = locate(path, self.path_manager)
        return super().load(path, *args, **kwargs)

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `<name>.pth`; only when it is whole does `last_checkpoint` name it."""
        if not self.save_dir or not self.save_to_disk:
            return
        data = {key: plain(obj.state_dict(), key) for key, obj in self.checkpointables.items()}
        data |= {key: plain(value, key) for key, value in kwargs.items()}
        if self.class_names:
            data["class_names"] = list(self.class_names)
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info(f"Saving checkpoint to {path}")
        with replacing_durably(path) as file:
            torch.save({"model": self.model.state_dict(), **data}, file)
        self.tag_last_checkpoint(f"{name}.pth")

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        with replacing_durably(self._tag_file()) as file:
            file.write(last_filename_basename.encode())

    def get_checkpoint_file(self) -> str:
        """The checkpoint that `last_checkpoint` names; the newest whole one where that is bad."""
        named = super().get_checkpoint_file()
        if not named or is_whole(named):
            return named
        others = sorted(self.get_all_checkpoint_files(), key=os.path.getmtime, reverse=True)
        found = next((file for file in others if is_whole(file)), None)
        if found is None:
            raise FileNotFoundError(
                f"{self._tag_file()} names {named}, which is missing or damaged, and the folder "
                "has no whole checkpoint; remove last_checkpoint to start from the beginning"
            )
        self.logger.warning(
            f"{named}, which last_checkpoint names, is missing or damaged; going on from {found}"
        )
        return found

    def _tag_file(self):
        return os.path.join(self.save_dir, "last_checkpoint")

    def _load_file(self, filename):
        self._file = filename
        return read_checkpoint(filename, self._match_by_suffix)

    def _load_model(self, checkpoint):
        weights, own = checkpoint["model"], self.model.state_dict()
        self._convert_ndarray_to_tensor(weights)
        rename(weights, own)
        if self._resumes:
            self._check_same(weights, own)
            return super()._load_model(checkpoint)
        # Names are guessed only where none is known: a guess may take one norm for another.
        if checkpoint.pop("matching_heuristics", False) and not weights.keys() & own.keys():
            is_caffe2 = checkpoint.get("__author__") == "Caffe2"
            weights = align_and_update_state_dicts(own, weights, c2_conversion=is_caffe2)
        rows = getattr(self.model, "checkpoint_rows", dict)()
        result = adapt(weights, own, checkpoint.get("class_names"), self.class_names, rows)
        checkpoint["model"] = result.weights
        incompatible = super()._load_model(checkpoint)
        self._log_table(result, own, incompatible)
        return incompatible

    def _check_same(self, weights, own):
        found = differences(weights, own)
        if found:
            rest = f"; and {len(found) - 5} more" if found[5:] else ""
            raise RuntimeError(
                f"{self._file} cannot be resumed, since the model of this config is another: "
                f"{'; '.join(found[:5])}{rest}; resume with the config of that run, or start a new "
                "one in another OUTPUT_DIR with this file as MODEL.WEIGHTS, to take over what fits"
            )

    def _log_table(self, result, own, incompatible):
        if result.taken(own):
            unknown = incompatible.unexpected_keys
            self.logger.info(table(result, own, incompatible.missing_keys, unknown))
        else:
            self.logger.warning(
                f"Nothing in {self._file} fits the model, whose {len(own)} weights stay fresh: it "
                f"has {', '.join(list(own)[:3])}, the file has "
                f"{', '.join([*result.weights, *result.refused][:3])}; check MODEL.WEIGHTS"
            )

    def _log_incompatible_keys(self, incompatible):
        """Nothing: the table has said it."""


def plain(value: Any, name: str) -> Any:
    """`value` out of tensors and plain values alone, which is what may be loaded again.

    numpy arrays become tensors, numpy numbers Python's, other dicts (Counter, …) plain dicts.
    """
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in _PLAIN:
        return value
    if isinstance(value, np.ndarray) and value.dtype != object:
        return torch.from_numpy(value.copy())
    if isinstance(value, dict):
        entries = {key: plain(entry, f"{name}[{key!r}]") for key, entry in value.items()}
        if hasattr(value, "_metadata"):  # a module's state_dict(): the versions of its layers
            entries = OrderedDict(entries)
            entries._metadata = value._metadata
        return entries
    if isinstance(value, (list, tuple)):
        entries = [plain(entry, f"{name}[{i}]") for i, entry in enumerate(value)]
        return entries if isinstance(value, list) else tuple(entries)
    raise ValueError(
        f"{name} of the checkpoint is a {type(value).__name__}, which could not be loaded again "
        "safely; let its state_dict() give tensors, numbers, texts, lists and dicts"
    )
