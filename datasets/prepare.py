"""The same as `rankseg-d2 dataset prepare NAME`. Names and options: --help."""

import sys

from rankseg_d2.cli import main

if __name__ == "__main__":
    sys.exit(main(["dataset", "prepare", *sys.argv[1:]]))
