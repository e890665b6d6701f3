"""The checkpointer of our trainer: it reads safely, saves whole files and finds the newest one."""

import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from torch import nn

from ..checkpoints import (
    METADATA,
    adapt,
    differences,
    is_whole,
    locate,
    read_checkpoint,
    rename,
    table,
)
from ..errors import short
from ..files import remove_leftovers, replacing_durably
from .run_folder import last_checkpoint, what_is_whole, writing
from .weight_average import WeightAverage

_START_ANEW = (
    "start a new run in another OUTPUT_DIR with this file as MODEL.WEIGHTS, to take over what fits"
)
_NUMBERED = re.compile(r"model_\d{7,}\.pth")  # of an iteration, not the best or the final one
_PLAIN = {torch.Tensor, torch.nn.Parameter, str, bytes, bool, int, float, complex, type(None)}


class Checkpointer(DetectionCheckpointer):
    """detectron2's checkpointer, on both engines made safe against bad files and sudden ends.

    A file that is not the model's own is adapted to it (`checkpoints/adapting.py`), which one table
    in the log tells. `class_names` are those that the model predicts; they are saved too, so that
    a model for other classes can take over the rows of those that both have. So is `description`,
    of which `packing.py` makes a file to predict with.

    The weights that it saves are those of the `average`, if there is one.

    With `keep`, only the newest so many checkpoints of iterations are kept (0: all) of those that
    this run has written, which each checkpoint lists.
    """

    _match_by_suffix = False
    _resumes = False
    _file = ""
    fresh: Sequence[str] = ()  # the model's weights that the last file did not have
    file_ranks: int | None = None  # of the last file's rank-adaptive temperature, if it has one

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        class_names: Sequence[str] | None = None,
        description: dict[str, Any] | None = None,
        keep: int = 0,
        average: WeightAverage | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, save_dir, **options)
        self.class_names = class_names
        self.description = description
        self.keep = keep
        self.average = average or WeightAverage(model, 0.0)
        self._written: list[str] = []  # names of this run's checkpoints of iterations

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Go on from this run's last checkpoint, which must fit exactly, or else load `path`."""
        self._resumes = resume and self.has_checkpoint()
        if self._resumes and self.save_to_disk:
            remove_leftovers([Path(self.save_dir)])
        try:
            checkpoint = super().resume_or_load(path, resume=resume)
            if self._resumes:
                self._written = _numbered(checkpoint.pop("written", ()))
            return checkpoint
        finally:
            self._resumes = False

    def check_resumable(self, parts: Iterable[str], has_model: bool = True) -> None:
        """Raise what `resume_or_load` would raise about this run's last checkpoint.

        `parts` must be in it, beside the model, which need not hold values.
        """
        self._file = self.get_checkpoint_file()
        checkpoint = read_checkpoint(self._file)
        self._check_parts(checkpoint, parts)
        if has_model:
            self._check_same(checkpoint["model"], self.model.state_dict())

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        if path:
            path, self._match_by_suffix = locate(path, self.path_manager)
        checkpoint = super().load(path, [])
        for name in self.checkpointables if checkpointables is None else checkpointables:
            if name in checkpoint:
                self._load_state(name, checkpoint.pop(name))
        return checkpoint

    def _load_state(self, name, state):
        """The state of the trainer, or another part beside the model."""
        self.logger.info("Loading the state of the %s from %s", name, self._file)
        try:
            check_like(state, self.checkpointables[name].state_dict(), name)
            self.checkpointables[name].load_state_dict(state)
        except Exception as error:  # a wrong state makes load_state_dict() raise anything
            raise ValueError(
                f"{self._file} cannot be resumed: its state of the {name} does not fit this run "
                f"({type(error).__name__}: {error}); {_START_ANEW}"
            ) from error

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `<name>.pth`; only when it is whole does `last_checkpoint` name it."""
        if self.save_dir and self.save_to_disk:
            with self.average.in_model():
                self._save(name, kwargs)

    def _save(self, name, kwargs):
        data = {key: plain(obj.state_dict(), key) for key, obj in self.checkpointables.items()}
        data |= {key: plain(value, key) for key, value in kwargs.items()}
        if self.class_names:
            data["class_names"] = list(self.class_names)
        if self.description:
            data[METADATA] = self.description
        if self.average.decay:
            data["ema_decay"] = self.average.decay
        if self.keep:
            self._written = data["written"] = _numbered([*self._written, f"{name}.pth"])
        self._check_finite()
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info(f"Saving checkpoint to {path}")
        remove_leftovers([Path(self.save_dir)])
        with writing(path, self.save_dir):
            with replacing_durably(path) as file:
                torch.save({"model": self.model.state_dict(), **data}, file)
            self.tag_last_checkpoint(f"{name}.pth")
        if self.keep:
            self._prune(f"{name}.pth")

    def _prune(self, newest):
        """Remove this run's older checkpoints of iterations, once the newest one is whole."""
        for name in self._written[: -self.keep]:
            if name == newest:  # it may be older than others, which a run before has written
                continue
            try:
                Path(self.save_dir, name).unlink(missing_ok=True)
                self._written.remove(name)
            except OSError as error:
                self.logger.warning(f"the old checkpoint {name} cannot be removed: {error}")

    def _check_finite(self):
        values = [value.isfinite().all() for value in self.model.parameters()]
        if values and not torch.stack(values).all():
            raise FloatingPointError(
                "the weights are not finite, so no checkpoint is written: the model has diverged; "
                f"{what_is_whole(self.save_dir)}"
            )

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        with replacing_durably(self._tag_file()) as file:
            file.write(last_filename_basename.encode())

    def get_checkpoint_file(self) -> str:
        """The checkpoint that `last_checkpoint` names; the newest whole one where that is bad."""
        named = last_checkpoint(self.save_dir)
        if named is None or is_whole(named):
            return named or ""
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
        checkpoint = read_checkpoint(filename, self._match_by_suffix)
        if self._resumes:
            self._check_parts(checkpoint, self.checkpointables)
        return checkpoint

    def _check_parts(self, checkpoint, names):
        missing = [name for name in names if name not in checkpoint]
        if missing:
            raise ValueError(
                f"{self._file} cannot be resumed: it has weights, but no state of the "
                f"{' and '.join(missing)}; {_START_ANEW}"
            )

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
        ranks = [name for name, kind in rows.items() if kind.meaning == "ranks" and name in weights]
        self.file_ranks = min((weights[x].numel() - rows[x].closed for x in ranks), default=None)
        result = adapt(weights, own, checkpoint.get("class_names"), self.class_names, rows)
        checkpoint["model"] = result.weights
        incompatible = super()._load_model(checkpoint)
        self.fresh = list(incompatible.missing_keys)
        self._log_table(result, own, incompatible)
        return incompatible

    def _check_same(self, weights, own):
        found = differences(weights, own)
        if found:
            rest = f"; and {len(found) - 5} more" if found[5:] else ""
            raise RuntimeError(
                f"{self._file} cannot be resumed, since the model of this config is another: "
                f"{'; '.join(found[:5])}{rest}; resume with the config of that run, or "
                f"{_START_ANEW}"
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


def _numbered(names: Any) -> list[str]:
    """The names of checkpoints of iterations, in their order; others are left out."""
    names = names if isinstance(names, list | tuple) else ()
    own = {name for name in names if isinstance(name, str) and _NUMBERED.fullmatch(name)}
    return sorted(own, key=lambda name: (len(name), name))


def check_like(state: Any, own: Any, name: str) -> None:
    """ValueError unless a saved state has the parts of our own, each of its kind and shape."""
    if isinstance(own, dict):
        if not isinstance(state, dict):
            raise ValueError(f"{name} is {short(state)} instead of a dict")
        for key in own.keys() & state.keys():
            check_like(state[key], own[key], f"{name}[{key!r}]")
    elif isinstance(own, list | tuple):
        if not isinstance(state, list | tuple):
            raise ValueError(f"{name} is {short(state)} instead of a list")
        for i, (one, own_one) in enumerate(zip(state, own, strict=False)):
            check_like(one, own_one, f"{name}[{i}]")
    elif isinstance(own, torch.Tensor):
        if not isinstance(state, torch.Tensor) or state.shape != own.shape:
            raise ValueError(f"{name} is not a tensor of the shape {tuple(own.shape)}")
    elif own is not None:
        number = (bool, int, float)
        kinds = number if isinstance(own, number) else type(own)
        if not isinstance(state, kinds):
            raise ValueError(f"{name} is {short(state)} instead of a {type(own).__name__}")


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
