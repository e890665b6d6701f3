"""Parameters, multiply-adds and activations of a model, by module.

Counted: matrix products, convolutions, both products of attention, and bilinear samples (four
multiply-adds each), as in deformable attention. Not counted: what is done to each element alone
(norms, activation functions, sums, softmax) and resizing. Activations are the elements of the
outputs of all that is counted, but for products that are added to an earlier output.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ..errors import unknown_name
from ..modeling.meta_arch.base import Segmentation
from ..modeling.transformer_decoder import MultiScaleMaskedTransformerDecoder
from ..ops import library
from ..ops.semantic import by_whole_maps

CONVENTION = (
    "One FLOP is one multiply-add; G = 1e9. Counted are matrix products, convolutions, both "
    "products of attention, and four for each bilinear sample of deformable attention; norms, "
    "activation functions, sums and resizing are not. Activations are the elements of the outputs "
    "of what is counted."
)
# Steps of a model that are no modules.
CLASSIFY = "ranking and classes"
RESULT = "semantic result"


@dataclass(frozen=True)
class Counts:
    """What a module and all in it have and do; or a step of the model that is no module."""

    name: str  # dotted; "" is the model
    parameters: int = 0
    flops: int = 0  # multiply-adds
    activations: int = 0


def count_config(cfg: CfgNode, size: tuple[int, int], frames: int = 1) -> list[Counts]:
    """`count_model` of a config's model. Only shapes are computed, which is quick for any model."""
    with torch.device("meta"):
        model = make_model(cfg)
    with FakeTensorMode(allow_non_fake_inputs=True):
        return count_model(model.to_empty(device="cpu"), size, frames)


@torch.no_grad()
def count_model(model: Segmentation, size: tuple[int, int], frames: int = 1) -> list[Counts]:
    """The counts of a model for one image or clip: of all first, then of each module.

    It goes as far as the class logits and, if MODEL.MASK_FORMER.TEST.SEMANTIC_ON, the semantic
    result at the input's size; panoptic and instance results multiply no matrices. κ is taken as
    TOPK, whatever the threshold and, of the oracle, the labels.
    """
    sample = make_sample(model, size, frames)
    with counting(model) as counter:
        _run(copy(model), sample, counter)
    return counter.counts(model)


def make_model(cfg: CfgNode) -> Segmentation:
    """The model of a config, to predict with, where PyTorch makes new tensors."""
    name = cfg.MODEL.META_ARCHITECTURE
    if name not in META_ARCH_REGISTRY:
        known = [name for name, _ in META_ARCH_REGISTRY]
        raise unknown_name("MODEL.META_ARCHITECTURE", name, known)
    model = META_ARCH_REGISTRY.get(name)(cfg)
    if not isinstance(model, Segmentation):
        raise ValueError(f"MODEL.META_ARCHITECTURE is {name}, which is no model of rankseg_d2")
    return model.eval()


def make_sample(model: Segmentation, size: tuple[int, int], frames: int) -> dict[str, Any]:
    """A grey image or clip; the oracle finds all categories in it."""
    if min(*size, frames) < 1:
        raise ValueError(f"size and frames must be at least 1; got {size} and {frames}")
    if frames > 1 and not model.is_video:
        raise ValueError(
            f"{type(model).__name__} takes images, but {frames} frames are asked for; only a "
            "config for video can have more than one"
        )
    image = torch.full((3, *size), 128, dtype=torch.uint8)
    present = torch.arange(model.num_classes)
    return {"image": [image] * frames if model.is_video else image, "present_classes": present}


def _run(model: Segmentation, sample: dict[str, Any], counter: "Counter") -> None:
    """Run a model, whose options this changes, up to its semantic result."""
    clips = model.preprocess([sample])
    outputs = model.network(clips.tensor, clips.num_frames)
    if model.ranker is not None:
        scores = torch.empty(1, model.num_classes) if model.ranker.oracle else outputs.scores
        outputs = replace(outputs, scores=scores)
        model.ranker = replace(model.ranker, oracle=False, threshold=None)
    with counter.within(CLASSIFY):
        outputs = model.decide(outputs)
    if model.result_options.semantic:
        options = replace(model.result_options, panoptic=False, instance=False, parsing=False)
        model.result_options = options
        with counter.within(RESULT):
            model.result(outputs, 0, clips.result_sizes([sample])[0])


@contextmanager
def counting(model: nn.Module) -> Iterator["Counter"]:
    """Count what is computed inside, by the modules of the model that do it.

    No operation is fused, as the kernels of attention are, so that each product is seen, and the
    masks that steer a decoder are whole, as papers count them.
    """
    counter, was_fast = Counter(), torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        for name, module in model.named_modules():
            for hook in counter.hook(name, module) if name else ():
                stack.callback(hook.remove)
        stack.callback(torch.backends.mha.set_fastpath_enabled, was_fast)
        torch.backends.mha.set_fastpath_enabled(False)
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(by_whole_maps())
        for module in model.modules():
            if isinstance(module, MultiScaleMaskedTransformerDecoder):
                stack.callback(setattr, module, "whole_masks", module.whole_masks)
                module.whole_masks = True
        stack.enter_context(counter)
        yield counter


class Counter(TorchDispatchMode):
    """Adds up the operations that run inside it, for the modules that are running."""

    def __init__(self) -> None:
        super().__init__()
        self.running = [""]
        self.flops: dict[str, int] = {}
        self.activations: dict[str, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        flops = multiply_adds(func.overloadpacket, args, kwargs, output)
        if flops is not None:
            activations = 0 if func.overloadpacket in _IN_PLACE else output.numel()
            for name in self._names():
                self.flops[name] = self.flops.get(name, 0) + flops
                self.activations[name] = self.activations.get(name, 0) + activations
        return output

    def _names(self) -> set[str]:
        """The innermost module that is running, and all that contain it."""
        parts = self.running[-1].split(".")
        return {".".join(parts[:count]) for count in range(len(parts) + 1)}

    def hook(self, name: str, module: nn.Module) -> tuple[Any, Any]:
        """Two hooks by which the counter knows when the module runs."""
        return (
            module.register_forward_pre_hook(lambda *_: self.running.append(name)),
            module.register_forward_hook(lambda *_: self._leave()),
        )

    def _leave(self) -> None:
        self.running.pop()  # a hook must return None

    @contextmanager
    def within(self, step: str) -> Iterator[None]:
        """What is computed inside is a step of this name."""
        self.running.append(step)
        yield
        self._leave()

    def counts(self, model: nn.Module) -> list[Counts]:
        """Of each module, in their order, and of each step; not of what does not take part."""
        sizes = {name: _parameters(module) for name, module in model.named_modules()}
        sizes |= {name: 0 for name in self.flops if name not in sizes}
        all_counts = [
            Counts(name, size, self.flops.get(name, 0), self.activations.get(name, 0))
            for name, size in sizes.items()
        ]
        return [counts for counts in all_counts if counts.parameters or counts.flops]


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(packet: Any, args: tuple, kwargs: dict, output: Any) -> int | None:
    """Of one call of an operation; None: it is not counted."""
    if packet in _SAMPLERS:
        return 4 * _SAMPLERS[packet](args, output)
    if packet in (torch.ops.aten.mv, torch.ops.aten.dot):
        return args[0].numel()
    packet = _IN_PLACE.get(packet, packet)
    if packet in flop_registry:  # has two for a multiply-add
        return flop_registry[packet](*args, **kwargs, out_val=output) // 2
    return None


_IN_PLACE = {
    torch.ops.aten.addmm_: torch.ops.aten.addmm,
    torch.ops.aten.baddbmm_: torch.ops.aten.baddbmm,
}


def _all_outputs(args: tuple, output: Tensor) -> int:
    return output.numel()


def _deformable_samples(args: tuple, output: Tensor) -> int:
    """Of (B, Q, M, L, P) weights or logits, each for D channels of output (B, Q, M·D)."""
    heads, levels, points = args[-1].shape[2:]
    assert output.shape[-1] == heads * args[0].shape[-1], (output.shape, args[0].shape)
    return output.numel() * levels * points


_SAMPLERS = {
    torch.ops.aten.grid_sampler_2d: _all_outputs,
    torch.ops.aten.grid_sampler_3d: _all_outputs,
}
if library.WHY_NOT is None:
    for _fused in ("", "_fused"):
        _op = getattr(torch.ops.rankseg_d2, f"ms_deform_attn{_fused}_forward")
        _SAMPLERS[_op] = _deformable_samples
