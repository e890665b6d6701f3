#!/usr/bin/env python3
"""Train or evaluate any config, image or video, on any number of GPUs or machines.

    python train_net.py --config-file my.yaml
    python train_net.py --config-file my.yaml --num-gpus 8 SOLVER.IMS_PER_BATCH 16
    python train_net.py --config-file my.yaml --resume
    python train_net.py --config-file my.yaml --eval-only MODEL.WEIGHTS model_final.pth
    python train_net.py --config-file my.yaml --eval-only --resume TEST.AUG.ENABLED True
    torchrun --nproc-per-node 8 train_net.py --config-file my.yaml

A mistake ends in one sentence; RANKSEG_TRACEBACK=1 shows where it is found.
"""

import rankseg_d2  # noqa: F401  (first: it makes `import detectron2` work anywhere)

# isort: split
from detectron2.engine import default_argument_parser
from detectron2.evaluation import verify_results
from detectron2.utils import comm

from rankseg_d2.config import get_config
from rankseg_d2.engine import (
    Checkpointer,
    Trainer,
    check_run,
    class_names,
    end_in_a_sentence,
    launch,
    log_results,
    setup,
)


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
    checkpointer = Checkpointer(model, save_dir=cfg.OUTPUT_DIR, class_names=class_names(cfg))
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        log_results(cfg, results)
        verify_results(cfg, results)
    return results


def run(args):
    check_run(get_config(args.config_file, args.opts), args)  # before any process is started
    launch(main, args)


if __name__ == "__main__":
    parser = default_argument_parser()
    args = parser.parse_args()
    if not args.config_file:
        parser.error("give --config-file: a yaml file, or the name of a shipped config")
    end_in_a_sentence(parser.prog, lambda: run(args))
