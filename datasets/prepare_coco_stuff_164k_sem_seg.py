"""COCO-Stuff 164k: semantic label maps. Options: --help."""

import sys

from rankseg_d2.cli import main

if __name__ == "__main__":
    sys.exit(main(["dataset", "prepare", "coco-stuff-164k", *sys.argv[1:]]))
