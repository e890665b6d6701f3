"""YouTube-VIS 2019: json files of the two parts of train. Options: --help."""

import sys

from rankseg_d2.cli import main

if __name__ == "__main__":
    sys.exit(main(["dataset", "prepare", "ytvis-2019", *sys.argv[1:]]))
