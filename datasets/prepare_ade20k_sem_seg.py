"""ADE20K: semantic label maps. Options: --help."""

import sys

from rankseg_d2.cli import main

if __name__ == "__main__":
    sys.exit(main(["dataset", "prepare", "ade20k", *sys.argv[1:]]))
