// The CUDA operators, whole and unchanged, but registered for CPU tensors and in a library of their
// own, torch.ops.rankseg_d2_on_host.
#include <ATen/ATen.h>
#include <torch/library.h>

#define rankseg_d2 rankseg_d2_on_host
#include "../../../rankseg_d2/ops/ms_deform_attn/csrc/ops.cpp"

#define CUDA CPU
#include "backward.cu"
#include "forward.cu"
#include "ops.cu"
