"""`rankseg-d2 predict`: images or videos, by what the source is."""

import argparse
from functools import partial

from .asked import check_writable, is_outside, part, shard_of_torchrun
from .folders import run_images
from .sources import open_source, video_files
from .video_folders import run_videos


def run(args: argparse.Namespace) -> int:
    """Predict all images or videos; the exit status is 1 if one could not be read or written."""
    if args.out:
        check_writable(args.out)
    counts = partial(is_outside, args)
    videos = [(args.source, "")] if args.video else video_files(args.source, counts)
    if videos:
        return run_videos(args, videos)
    items = [item for item in open_source(args.source).items if counts(item.name)]
    return run_images(args, part(items, args.shard or shard_of_torchrun()))
