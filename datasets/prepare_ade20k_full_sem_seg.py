"""ADE20K-Full, 847 classes: images and semantic label maps. Options: --help."""

import sys

from rankseg_d2.cli import main

if __name__ == "__main__":
    sys.exit(main(["dataset", "prepare", "ade20k-full", *sys.argv[1:]]))
