#!/usr/bin/env python3
"""Train or evaluate any config, image or video, on any number of GPUs or machines.

    python train_net.py --config-file toy/semantic/r18
    python train_net.py --num-gpus 8 --config-file my.yaml SOLVER.IMS_PER_BATCH 16
    python train_net.py --config-file my.yaml --resume
    python train_net.py --config-file my.yaml --eval-only MODEL.WEIGHTS model_final.pth
    torchrun --nproc-per-node 8 train_net.py --config-file my.yaml
"""

import sys

import rankseg_d2  # noqa: F401  (first: it makes `import detectron2` work anywhere)

# isort: split
from detectron2.engine import default_argument_parser
from detectron2.evaluation import verify_results
from detectron2.utils import comm

import rankseg_d2.modeling  # noqa: F401  (registers the models)
from rankseg_d2.config import get_config
from rankseg_d2.engine import Checkpointer, Trainer, launch, setup


def main(args):
    cfg = get_config(args.config_file, args.opts)
    cfg.freeze()
    setup(cfg, args)
    if args.eval_only:
        return evaluate(cfg, args.resume)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


def evaluate(cfg, resume):
    """Results of MODEL.WEIGHTS, or with `resume` of the run's last checkpoint."""
    model = Trainer.build_model(cfg)
    Checkpointer(model, save_dir=cfg.OUTPUT_DIR).resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


if __name__ == "__main__":
    parser = default_argument_parser()
    args = parser.parse_args()
    if not args.config_file:
        parser.error("give --config-file: a yaml file, or a shipped config as toy/semantic/r18")
    try:
        get_config(args.config_file, args.opts)  # a wrong one ends here, before any process starts
    except (ValueError, KeyError, FileNotFoundError) as error:
        sys.exit(f"{parser.prog}: error: {error.args[-1]}")
    launch(main, args)
