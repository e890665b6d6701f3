"""PASCAL-Context, 59 or 60 classes: semantic label maps. Options: --help."""

import sys

from rankseg_d2.cli import main

if __name__ == "__main__":
    sys.exit(main(["dataset", "prepare", "pascal-context", *sys.argv[1:]]))
