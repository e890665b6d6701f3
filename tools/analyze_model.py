"""Parameters, FLOPs, activations, memory and time of a config's model: `rankseg-d2 analyze`.

    python tools/analyze_model.py CONFIG [KEY VALUE ...] [--size H W] [--frames T] [--json]
"""

import sys

from rankseg_d2.cli import main

if __name__ == "__main__":
    sys.exit(main(["analyze", *sys.argv[1:]]))
