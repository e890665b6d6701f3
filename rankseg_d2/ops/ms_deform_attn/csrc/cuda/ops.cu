// The four operators on CUDA tensors. Only this file knows PyTorch's tensors, and only the host
// needs it: each architecture's pass over it is empty, which saves most of the compile time.
#ifndef __CUDA_ARCH__

#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>
#include <tuple>

#include "../ms_deform_attn.h"
#include "problem.cuh"

namespace rankseg_d2::cuda {
namespace {

using at::IntArrayRef;
using at::Tensor;

// Half types add up the gradient of value in a float buffer, for as many images at a time as fit
// in this many bytes, but at least one: so much memory, not the whole batch's, and the buffer
// stays in the L2 cache until it is rounded.
constexpr int64_t kBufferBytes = 32 << 20;

// Contiguous, and aligned for 128-bit access, which a view into another tensor need not be.
Tensor prepared(const Tensor& tensor) {
  const Tensor contiguous = tensor.contiguous();
  const auto address = reinterpret_cast<uintptr_t>(contiguous.const_data_ptr());
  return address % 16 == 0 ? contiguous : contiguous.clone();
}

// `references` are undefined where positions are locations.
struct Inputs {
  Tensor value, positions, weights, references;
  IntArrayRef shapes;

  Inputs images(int64_t first, int64_t count) const {
    const auto part = [&](const Tensor& t) { return t.defined() ? t.narrow(0, first, count) : t; };
    return {part(value), part(positions), part(weights), part(references), shapes};
  }
};

// The numbers that the kernels keep in 32 bits, and the size of a grid of blocks, set limits.
Inputs checked(const Tensor& value, IntArrayRef shapes, const Tensor& positions,
               const Tensor& weights, const Tensor& references = {}) {
  check_inputs(value, shapes, positions, weights, references);
  constexpr int64_t largest = std::numeric_limits<int>::max();
  TORCH_CHECK(shapes.size() <= 2 * kMaxLevels, "ms_deform_attn: the CUDA kernels take at most ",
              kMaxLevels, " levels, got ", shapes.size() / 2);
  TORCH_CHECK(value.size(0) <= kMaxGridY && value.size(2) <= kMaxGridY,
              "ms_deform_attn: the CUDA kernels take at most ", kMaxGridY,
              " images and heads, but value has shape ", value.sizes());
  TORCH_CHECK(value.size(1) * value.size(2) * value.size(3) <= largest &&
                  positions.size(1) <= largest - kThreads &&
                  weights.size(3) * weights.size(4) <= largest - kThreads,
              "ms_deform_attn: too large for the CUDA kernels, 2^31 numbers per image: value ",
              value.sizes(), ", locations ", positions.sizes());
  return {prepared(value), prepared(positions), prepared(weights),
          references.defined() ? prepared(references) : references, shapes};
}

Sizes sizes_of(const Inputs& inputs) {
  const auto size = [](const Tensor& t, int dim) { return static_cast<int>(t.size(dim)); };
  return {size(inputs.value, 0),   size(inputs.weights, 1), size(inputs.value, 2),
          size(inputs.value, 3),   size(inputs.weights, 4), size(inputs.weights, 3),
          inputs.shapes.data()};
}

template <typename Acc>
Points<Acc> points_of(const Inputs& inputs) {
  const auto& references = inputs.references;
  return {inputs.positions.const_data_ptr<Acc>(), inputs.weights.const_data_ptr<Acc>(),
          references.defined() ? references.const_data_ptr<Acc>() : nullptr};
}

Tensor run_forward(const Inputs& inputs) {
  const Tensor& value = inputs.value;
  const c10::cuda::CUDAGuard guard(value.device());
  const Sizes sizes = sizes_of(inputs);
  Tensor out = at::empty({sizes.batch, sizes.queries, value.size(2) * value.size(3)},
                         value.options());
  if (out.numel() == 0) return out;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, value.scalar_type(), "ms_deform_attn_forward", [&] {
        C10_CUDA_CHECK(forward<scalar_t>(sizes, points_of<Accumulator<scalar_t>>(inputs),
                                         value.const_data_ptr<scalar_t>(),
                                         out.mutable_data_ptr<scalar_t>(),
                                         c10::cuda::getCurrentCUDAStream()));
        C10_CUDA_KERNEL_LAUNCH_CHECK();
      });
  return out;
}

// Adds to grad_value, writes the others.
void launch_backward(const Inputs& inputs, const Tensor& grad, const Tensor& grad_value,
                     const Tensor& grad_positions, const Tensor& grad_weights) {
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, inputs.value.scalar_type(), "ms_deform_attn_backward", [&] {
        using Acc = Accumulator<scalar_t>;
        C10_CUDA_CHECK(backward<scalar_t>(
            sizes_of(inputs), points_of<Acc>(inputs), inputs.value.const_data_ptr<scalar_t>(),
            grad.const_data_ptr<scalar_t>(), grad_value.mutable_data_ptr<Acc>(),
            grad_positions.mutable_data_ptr<Acc>(), grad_weights.mutable_data_ptr<Acc>(),
            c10::cuda::getCurrentCUDAStream()));
        C10_CUDA_KERNEL_LAUNCH_CHECK();
      });
}

using Gradients = std::tuple<Tensor, Tensor, Tensor>;  // of value, positions, weights

Gradients run_backward(const Tensor& grad_out, const Inputs& inputs) {
  at::globalContext().alertNotDeterministic("ms_deform_attn_backward_cuda");
  const Tensor& value = inputs.value;
  check_grad(grad_out, value, inputs.positions);
  const c10::cuda::CUDAGuard guard(value.device());
  const Tensor grad = prepared(grad_out);
  Tensor grad_positions = at::empty_like(inputs.positions);
  Tensor grad_weights = at::empty_like(inputs.weights);
  if (grad.numel() == 0)
    return {at::zeros(value.sizes(), value.options()), grad_positions.zero_(),
            grad_weights.zero_()};
  if (inputs.weights.scalar_type() == value.scalar_type()) {
    const Tensor grad_value = at::zeros(value.sizes(), value.options());
    launch_backward(inputs, grad, grad_value, grad_positions, grad_weights);
    return {grad_value, grad_positions, grad_weights};
  }

  const Tensor grad_value = at::empty(value.sizes(), value.options());
  const int64_t bytes = std::max<int64_t>(1, value[0].numel() * sizeof(float));
  const int64_t step = std::min(value.size(0), std::max<int64_t>(1, kBufferBytes / bytes));
  const Tensor buffer = at::empty({step, value.size(1), value.size(2), value.size(3)},
                                  value.options().dtype(at::kFloat));
  for (int64_t first = 0; first < value.size(0); first += step) {
    const int64_t count = std::min(step, value.size(0) - first);
    const Tensor sums = buffer.narrow(0, 0, count).zero_();
    launch_backward(inputs.images(first, count), grad.narrow(0, first, count), sums,
                    grad_positions.narrow(0, first, count), grad_weights.narrow(0, first, count));
    grad_value.narrow(0, first, count).copy_(sums);
  }
  return {grad_value, grad_positions, grad_weights};
}

Tensor ms_deform_attn_forward(const Tensor& value, IntArrayRef shapes, const Tensor& locations,
                              const Tensor& weights) {
  return run_forward(checked(value, shapes, locations, weights));
}

Gradients ms_deform_attn_backward(const Tensor& grad, const Tensor& value, IntArrayRef shapes,
                                  const Tensor& locations, const Tensor& weights) {
  return run_backward(grad, checked(value, shapes, locations, weights));
}

Tensor ms_deform_attn_fused_forward(const Tensor& value, IntArrayRef shapes,
                                    const Tensor& reference, const Tensor& offsets,
                                    const Tensor& logits) {
  return run_forward(checked(value, shapes, offsets, logits, reference));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> ms_deform_attn_fused_backward(
    const Tensor& grad, const Tensor& value, IntArrayRef shapes, const Tensor& reference,
    const Tensor& offsets, const Tensor& logits) {
  auto [grad_value, grad_offsets, grad_logits] =
      run_backward(grad, checked(value, shapes, offsets, logits, reference));
  // A reference point moves all its points, by a level's (w, h) pixels per unit.
  Tensor grad_reference = grad_offsets.sum({2, 4});  // (B, Q, L, 2)
  for (size_t i = 0; i < shapes.size() / 2; ++i) {
    grad_reference.select(2, i).select(2, 0).mul_(shapes[2 * i + 1]);
    grad_reference.select(2, i).select(2, 1).mul_(shapes[2 * i]);
  }
  return {grad_value, grad_reference, grad_offsets, grad_logits};
}

}  // namespace

TORCH_LIBRARY_IMPL(rankseg_d2, CUDA, m) {
  m.impl("ms_deform_attn_forward", ms_deform_attn_forward);
  m.impl("ms_deform_attn_backward", ms_deform_attn_backward);
  m.impl("ms_deform_attn_fused_forward", ms_deform_attn_fused_forward);
  m.impl("ms_deform_attn_fused_backward", ms_deform_attn_fused_backward);
}

}  // namespace rankseg_d2::cuda

#endif  // __CUDA_ARCH__
