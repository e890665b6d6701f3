"""COCO-Stuff 10k, release 1.0 or 1.1: semantic label maps. Options: --help."""

import sys

from rankseg_d2.cli import main

if __name__ == "__main__":
    sys.exit(main(["dataset", "prepare", "coco-stuff-10k", *sys.argv[1:]]))
