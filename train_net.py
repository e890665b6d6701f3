#!/usr/bin/env python3
"""Train or evaluate any config, image or video, on any number of GPUs or machines.

    python train_net.py --config-file my.yaml
    python train_net.py --config-file my.yaml --num-gpus 8 SOLVER.IMS_PER_BATCH 16
    python train_net.py --config-file my.yaml --resume
    python train_net.py --config-file my.yaml --eval-only MODEL.WEIGHTS model_final.pth
    python train_net.py --config-file my.yaml --eval-only --resume TEST.AUG.ENABLED True
    torchrun --nproc-per-node 8 train_net.py --config-file my.yaml

`rankseg-d2 train` and `rankseg-d2 eval` do the same, and can choose a config for own data; what
they share is in rankseg_d2/engine/start.py. A mistake ends in one sentence; RANKSEG_TRACEBACK=1
shows where it is found.
"""

import rankseg_d2  # noqa: F401  (first: it makes `import detectron2` work anywhere)

# isort: split
from detectron2.engine import default_argument_parser

from rankseg_d2.engine import end_in_a_sentence, start

if __name__ == "__main__":
    parser = default_argument_parser()
    args = parser.parse_args()
    if not args.config_file:
        parser.error("give --config-file: a yaml file, or the name of a shipped config")
    end_in_a_sentence(parser.prog, lambda: start(args))
