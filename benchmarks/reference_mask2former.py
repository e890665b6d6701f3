"""A training step of the code of Mask2Former's authors, which `train_step.py --reference` starts.

It runs in a process of its own, for its models have the names of ours. Each line of the input is an
image size, and each answer the sum of the losses and the MiB of a GPU that the step took.
"""

import importlib.util
import logging
import os
import sys
import types
from collections.abc import Callable

import torch
from torch import nn

CONFIG = "configs/ade20k/semantic-segmentation/maskformer2_R50_bs16_160k.yaml"
CLASSES, OBJECTS = 150, 8
KERNEL = "MultiScaleDeformableAttention"
# It imports these, and a training step on a CPU does without them.
NOT_NEEDED = {
    KERNEL: (), "panopticapi": (), "panopticapi.utils": ("rgb2id",),
}  # fmt: skip


def drawn_batch(size: int, number: int) -> list[dict]:
    """Images of noise with squares as objects."""
    from detectron2.structures import Instances

    random = torch.Generator().manual_seed(size)
    batch = []
    for _ in range(number):
        masks = torch.zeros(OBJECTS, size, size, dtype=torch.bool)
        corners = torch.randint(size // 2, (OBJECTS, 2), generator=random)
        for mask, (x, y) in zip(masks, corners, strict=True):
            mask[y : y + size // 3, x : x + size // 3] = True
        objects = Instances((size, size))
        objects.gt_classes = torch.randint(CLASSES, (OBJECTS,), generator=random)
        objects.gt_masks = masks
        image = torch.randint(256, (3, size, size), dtype=torch.uint8, generator=random)
        batch.append({"image": image, "instances": objects})
    return batch


def step_of(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    update: Callable[[], None],
    number: int,
    amp: bool,
) -> Callable[[int], tuple[float, float]]:
    """A training step on `number` images of a size.

    It returns the sum of the losses, without a ranking's, and the MiB of a GPU that it took above
    what was there before, which are weights, gradients and the optimizer's state.
    """
    device = next(model.parameters()).device

    def step(size: int) -> tuple[float, float]:
        torch.manual_seed(0)
        before = memory(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            losses = model(drawn_batch(size, number))
        optimizer.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        update()
        found = sum(loss.item() for name, loss in losses.items() if name != "loss_ml")
        return found, memory(device, peak=True) - before

    return step


def memory(device: torch.device, peak: bool = False) -> float:
    """MiB in use on a GPU now, or the most since it was asked last; 0 on a CPU."""
    if device.type != "cuda":
        return 0.0
    if peak:
        return torch.cuda.max_memory_allocated(device) / 2**20
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device) / 2**20


def make_step(
    path: str, weights: str, number: int, device: str, amp: bool
) -> Callable[[int], tuple[float, float]]:
    """The step of the checkout in `path`; writes the weights that it begins with."""
    if device == "cuda" and importlib.util.find_spec(KERNEL) is None:
        sys.exit(f"its kernel {KERNEL} is not installed; make.sh of its pixel decoder builds it")
    absent = [name for name in NOT_NEEDED if importlib.util.find_spec(name.split(".")[0]) is None]
    for name in absent:
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(dict.fromkeys(NOT_NEEDED[name]))
    sys.path.insert(0, path)
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model
    from detectron2.projects.deeplab import add_deeplab_config
    from mask2former import add_maskformer2_config

    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_maskformer2_config(cfg)
    cfg.merge_from_file(os.path.join(path, CONFIG))
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = device, ""
    torch.manual_seed(0)
    model = build_model(cfg).train()
    torch.save(model.state_dict(), weights)
    # Its trainer has a group for each parameter, and clips the norm of all gradients.
    groups = [{"params": [parameter]} for parameter in model.parameters()]
    rate, decay = cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY
    optimizer = torch.optim.AdamW(groups, rate, weight_decay=decay)

    def update():
        nn.utils.clip_grad_norm_(model.parameters(), cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE)
        optimizer.step()

    return step_of(model, optimizer, update, number, amp)


def main() -> None:
    path, weights, number, threads, device, amp = sys.argv[1:]
    torch.set_num_threads(int(threads))
    logging.disable(logging.WARNING)
    answers, sys.stdout = sys.stdout, sys.stderr  # what its code prints is no answer
    step = make_step(path, weights, int(number), device, amp == "True")
    for line in sys.stdin:
        loss, mib = step(int(line))
        answers.write(f"{loss} {mib}\n")
        answers.flush()


if __name__ == "__main__":
    main()
