"""YouTube-VIS 2021: json files of the two parts of train. Options: --help."""

import sys

from rankseg_d2.cli import main

if __name__ == "__main__":
    sys.exit(main(["dataset", "prepare", "ytvis-2021", *sys.argv[1:]]))
