"""`rankseg-d2 predict` of videos: of one, or of those in a folder."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path, PurePath

from tqdm import tqdm

from ..data.formats.image_files import UnreadableError
from ..errors import sentence
from .asked import is_to_do, make_predictor, part, shard_of_torchrun, wishes
from .folders import run_images
from .frames import Video, open_video
from .predictor import Predictor
from .saving import ENDS, path_of

_OF_IMAGES = ("panoptic_png", "explore")  # files that videos do not have


def run_videos(args: argparse.Namespace, sources: Sequence[tuple[str, str]]) -> int:
    """Predict videos, by (path, name); the exit status is 1 if one could not be read.

    A shard is every N-th video of several; of one video by a model of images, every N-th frame.
    """
    if len(sources) > 1:
        _check_names(sources)
    args.threads = 1  # decode the frames of a file in their order
    predictor, total = make_predictor(args), len(sources)
    shard = args.shard or shard_of_torchrun()
    if total > 1 or predictor.model.is_video:
        sources, shard = part(sources, shard), (1, 1)
    failed = 0
    for path, name in sources:
        try:
            video = open_video(path, name)
            run = _run_video if predictor.model.is_video else _run_frames
            failed += run(predictor, args, video, shard)
        except UnreadableError as error:
            if total == 1:
                raise
            failed += 1
            sys.stderr.write(f"skipped {sentence(error)}\n")
    if total > 1 and failed:
        sys.stderr.write(f"{failed} of {total} videos were skipped, or frames of them\n")
    return int(failed > 0)


def _check_names(sources: Sequence[tuple[str, str]]) -> None:
    taken: dict[PurePath, str] = {}
    for path, name in sources:
        other = taken.setdefault(PurePath(name).with_suffix(""), path)
        if other != path:
            raise ValueError(
                f"{other} and {path} would be written to the same files; predict them into "
                "different folders"
            )


def _run_frames(
    predictor: Predictor, args: argparse.Namespace, video: Video, shard: tuple[int, int]
) -> int:
    """Predict the frames of a video as images."""
    return run_images(args, part(video.items(), shard), predictor)


def _run_video(
    predictor: Predictor, args: argparse.Namespace, video: Video, shard: tuple[int, int]
) -> int:
    """Predict a video by a model for videos."""
    for name in _OF_IMAGES:
        if name in args.save:
            raise ValueError(f"{name} is for images; a video has label_png, overlay and coco")
    wanted = {name: name in args.save for name in ENDS if name not in _OF_IMAGES}
    if args.out and not is_to_do(_files(video, args.out, wanted), args):
        sys.stderr.write(f"nothing is left to do of {video.path}\n")
        return 0
    frames = len(video.frames)
    with tqdm(total=frames, desc=video.name, unit="frames") as bar:
        count = lambda *_: bar.update()  # noqa: E731
        predictor.model.label_callbacks.append(count)
        try:
            result = predictor(video, video=True, **wishes(args))
        finally:
            predictor.model.label_callbacks.remove(count)
        bar.update(frames - bar.n)  # of models without label maps
    if args.out:
        overwrite = args.overwrite or args.go_on
        result.save(args.out, own_ids=args.own_ids, overwrite=overwrite, **wanted)
    if args.json:
        sys.stdout.write(f"{json.dumps(result.to_dict())}\n")
    for name in result.likely_excluded:
        sys.stderr.write(f"{name} is excluded, but is likely present in {video.name}\n")
    return 0


def _files(video: Video, folder: str, wanted: dict[str, bool]) -> list[Path]:
    """The files that `VideoResult.save` writes."""
    files = []
    if wanted["label_png"]:
        files = [path_of(video.frame_name(i), folder, ".png") for i in range(len(video.frames))]
    ends = {"overlay": "_overlay.mp4", "coco": "_coco.json", "categories": "_categories.json"}
    more = [path_of(f"{video.stem}.mp4", folder, end) for key, end in ends.items() if wanted[key]]
    return [*files, *more]
