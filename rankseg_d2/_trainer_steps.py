"""The steps in which a trainer is made, for the embedded DefaultTrainer and for our Trainer."""

from typing import Any

from fvcore.common.config import CfgNode


def construct(trainer: Any, cfg: CfgNode) -> None:
    """Make the parts of a DefaultTrainer in detectron2's order, each by a method of it."""
    cfg = trainer.prepare_cfg(cfg)
    model = trainer.build_model(cfg)
    optimizer = trainer.build_optimizer(cfg, model)
    data_loader = trainer.build_train_loader(cfg)
    trainer.check_parts(cfg, model)
    model = trainer.wrap_model(cfg, model)
    trainer._trainer = trainer.build_step_trainer(cfg, model, data_loader, optimizer)
    trainer.scheduler = trainer.build_lr_scheduler(cfg, optimizer)
    trainer.checkpointer = trainer.build_checkpointer(cfg, model)
    trainer.start_iter = 0
    trainer.max_iter = cfg.SOLVER.MAX_ITER
    trainer.cfg = cfg
    trainer.register_hooks(trainer.build_hooks())
