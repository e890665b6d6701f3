"""Cityscapes: label maps of train ids, panoptic json and PNG files. Options: --help."""

import sys

from rankseg_d2.cli import main

if __name__ == "__main__":
    sys.exit(main(["dataset", "prepare", "cityscapes", *sys.argv[1:]]))
