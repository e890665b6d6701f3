"""COCO: semantic label maps of the panoptic classes. Options: --help."""

import sys

from rankseg_d2.cli import main

if __name__ == "__main__":
    sys.exit(main(["dataset", "prepare", "coco-panoptic", *sys.argv[1:]]))
