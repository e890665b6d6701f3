"""ADE20K: a json of instances. Options: --help."""

import sys

from rankseg_d2.cli import main

if __name__ == "__main__":
    sys.exit(main(["dataset", "prepare", "ade20k-instance", *sys.argv[1:]]))
