"""ADE20K: panoptic json and PNG files, and semantic label maps. Options: --help."""

import sys

from rankseg_d2.cli import main

if __name__ == "__main__":
    sys.exit(main(["dataset", "prepare", "ade20k-panoptic", *sys.argv[1:]]))
