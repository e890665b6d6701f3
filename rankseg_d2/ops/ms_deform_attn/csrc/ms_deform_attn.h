// Checks of the inputs of every backend, so that no kernel reads outside a tensor.

#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <limits>

namespace rankseg_d2 {

inline void check_tensor(const char* name, const at::Tensor& tensor, const at::Tensor& value,
                         at::IntArrayRef sizes) {
  const auto dtype = value.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  TORCH_CHECK(tensor.sizes() == sizes, "ms_deform_attn: ", name, " has shape ", tensor.sizes(),
              ", expected ", sizes);
  TORCH_CHECK(tensor.scalar_type() == dtype, "ms_deform_attn: ", name, " is ",
              tensor.scalar_type(), ", expected ", dtype);
  TORCH_CHECK(tensor.device() == value.device(), "ms_deform_attn: ", name, " is on ",
              tensor.device(), ", but value is on ", value.device());
}

// `positions` are locations or offsets, `weights` attention weights or logits; `references` are
// undefined unless the positions are offsets.
inline void check_inputs(const at::Tensor& value, at::IntArrayRef shapes,
                         const at::Tensor& positions, const at::Tensor& weights,
                         const at::Tensor& references = {}) {
  TORCH_CHECK(value.dim() == 4, "ms_deform_attn: value has shape ", value.sizes(),
              ", expected (B, S, M, D)");
  TORCH_CHECK(positions.dim() == 6, "ms_deform_attn: locations have shape ", positions.sizes(),
              ", expected (B, Q, M, L, P, 2)");
  TORCH_CHECK(shapes.size() % 2 == 0, "ms_deform_attn: shapes need h and w of every level");
  const int64_t levels = static_cast<int64_t>(shapes.size() / 2);
  int64_t area = 0;
  for (int64_t i = 0; i < levels; ++i) {
    const int64_t h = shapes[2 * i], w = shapes[2 * i + 1];
    constexpr int64_t limit = 1 << 24;  // float32 counts exactly up to here
    TORCH_CHECK(h > 0 && w > 0 && h < limit && w < limit, "ms_deform_attn: level ", i,
                " has size ", h, " x ", w);
    area += h * w;
  }
  TORCH_CHECK(value.size(1) == area, "ms_deform_attn: value has ", value.size(1),
              " positions, but the levels have ", area);
  const int64_t batch = value.size(0), queries = positions.size(1), heads = value.size(2);
  const int64_t points = positions.size(4);
  check_tensor("locations", positions, value, {batch, queries, heads, levels, points, 2});
  check_tensor("weights", weights, value, {batch, queries, heads, levels, points});
  if (references.defined()) {
    check_tensor("reference_points", references, value, {batch, queries, levels, 2});
  }
}

inline void check_grad(const at::Tensor& grad, const at::Tensor& value,
                       const at::Tensor& positions) {
  const at::IntArrayRef sizes = grad.sizes();
  TORCH_CHECK(grad.dim() == 3 && sizes[0] == value.size(0) && sizes[1] == positions.size(1) &&
                  sizes[2] == value.size(2) * value.size(3),
              "ms_deform_attn: grad has shape ", sizes, ", expected (B, Q, M*D)");
  TORCH_CHECK(grad.scalar_type() == value.scalar_type() && grad.device() == value.device(),
              "ms_deform_attn: grad must have value's dtype and device");
}

}  // namespace rankseg_d2
