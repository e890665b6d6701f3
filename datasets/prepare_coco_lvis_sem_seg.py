"""COCO+LVIS, 1,284 classes: semantic label maps. Options: --help."""

import sys

from rankseg_d2.cli import main

if __name__ == "__main__":
    sys.exit(main(["dataset", "prepare", "coco-lvis", *sys.argv[1:]]))
