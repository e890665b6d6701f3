"""A checkpointer for our own files, detectron2's zoo files and weights of other origin."""

from fvcore.common.checkpoint import Checkpointer

from ...checkpoints.reading import locate, read_checkpoint
from ..utils import comm
from ..utils.file_io import PathManager
from .c2_model_loading import align_and_update_state_dicts


class DetectionCheckpointer(Checkpointer):
    """fvcore's Checkpointer that reads files safely and, where asked, matches foreign names.

    Names are matched for files that say "matching_heuristics" themselves (zoo files of numpy
    arrays), for Caffe2 files, and for any path that ends in "?matching_heuristics=True".
    """

    def __init__(self, model, save_dir="", *, save_to_disk=None, **checkpointables):
        if save_to_disk is None:
            save_to_disk = comm.is_main_process()
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.path_manager = PathManager
        self._matching_heuristics = False

    def load(self, path, *args, **kwargs):
        if path:
            path, self._matching_heuristics = locate(path, self.path_manager)
        return super().load(path, *args, **kwargs)

    def _load_file(self, filename):
        return read_checkpoint(filename, self._matching_heuristics)

    def _load_model(self, checkpoint):
        if checkpoint.get("matching_heuristics"):
            self._convert_ndarray_to_tensor(checkpoint["model"])
            checkpoint["model"] = align_and_update_state_dicts(
                self.model.state_dict(),
                checkpoint["model"],
                c2_conversion=checkpoint.get("__author__") == "Caffe2",
            )
        incompatible = super()._load_model(checkpoint)
        # Constants that cfg defines: files need not have them.
        own_buffers = dict(self.model.named_buffers(recurse=False))
        for name in {"pixel_mean", "pixel_std"} & own_buffers.keys() & {*incompatible.missing_keys}:
            incompatible.missing_keys.remove(name)
        unexpected = incompatible.unexpected_keys
        unexpected[:] = [name for name in unexpected if "anchor_generator.cell_anchors" not in name]
        return incompatible
