"""Where the time of a prediction or a training step goes, by stage: `rankseg-d2 profile`.

    python tools/profile_model.py CONFIG [KEY VALUE ...] [--train] [--trace FILE] [--json]
"""

import sys

from rankseg_d2.cli import main

if __name__ == "__main__":
    sys.exit(main(["profile", *sys.argv[1:]]))
