// Multi-scale deformable attention on the CPU: planes in and out, and what each thread does.

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/tensor.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "../ms_deform_attn.h"
#include "kernels.h"

namespace rankseg_d2 {
namespace {

// The inputs of one call, contiguous. `references` are undefined where positions are locations.
struct Inputs {
  at::Tensor value, positions, weights, references;
  at::IntArrayRef shapes;

  Inputs(const at::Tensor& value, at::IntArrayRef shapes, const at::Tensor& positions,
         const at::Tensor& weights, const at::Tensor& references = {})
      : value(value.contiguous()), positions(positions.contiguous()), weights(weights.contiguous()),
        references(references.defined() ? references.contiguous() : references), shapes(shapes) {
    check_inputs(value, shapes, positions, weights, references);
  }

  int64_t batch() const { return value.size(0); }
  int64_t queries() const { return positions.size(1); }
  int64_t heads() const { return value.size(2); }
  int64_t channels() const { return value.size(3); }
  int64_t levels() const { return positions.size(3); }
  int64_t points() const { return positions.size(4); }
};

// Memory of one thread for the points of a block of queries.
template <typename T>
struct Workspace {
  at::Tensor numbers, cells;
  Block<T> block;

  explicit Workspace(const Head<T>& head) {
    const int64_t count = kBlock * head.levels * head.points;
    const auto dtype = c10::CppTypeToScalarType<T>::value;
    numbers = at::empty({11 * count + head.depth}, at::dtype(dtype));
    cells = at::empty({count}, at::dtype(c10::CppTypeToScalarType<Index<T>>::value));
    T* next = numbers.mutable_data_ptr<T>();
    const auto take = [&](int64_t size) { return std::exchange(next, next + size); };
    block.channels = take(head.depth);
    block.x = take(count);
    block.y = take(count);
    block.attention = take(count);
    for (auto& corner : block.corner) corner = take(count);
    block.dot = take(4 * count);
    block.cell = cells.mutable_data_ptr<Index<T>>();
  }
};

// How one call is cut into heads: `S` is the type of value, `T` that of the sums.
template <typename S, typename T = Sum<S>>
struct Layout {
  const Inputs& in;
  std::vector<Level> levels;
  int64_t plane_size;
  std::vector<T> width, height;  // of the level of each point of a block
  std::vector<Index<T>> first_cell, row;
  Head<T> head;

  explicit Layout(const Inputs& inputs) : in(inputs) {
    int64_t position = 0, cell = 0;
    for (int64_t i = 0; i < in.levels(); ++i) {
      const int64_t h = in.shapes[2 * i], w = in.shapes[2 * i + 1];
      levels.push_back({static_cast<int32_t>(h), static_cast<int32_t>(w), position,
                        static_cast<int32_t>(cell)});
      position += h * w;
      cell += (h + 2) * (w + 2);
      TORCH_CHECK(cell <= std::numeric_limits<int32_t>::max(),
                  "ms_deform_attn: the levels have more than 2^31 positions");
    }
    const int64_t depth = (in.channels() + kPadding - 1) / kPadding * kPadding;
    plane_size = cell * depth;
    for (int64_t i = 0; i < kBlock * in.levels() * in.points(); ++i) {
      const Level& level = levels[i / in.points() % in.levels()];
      width.push_back(static_cast<T>(level.width));
      height.push_back(static_cast<T>(level.height));
      first_cell.push_back(level.first_cell);
      row.push_back(level.width + 2);
    }
    head = {in.levels(), in.points(), in.channels(), depth,
            {width.data(), height.data(), first_cell.data(), row.data()}};
  }

  // Where head m of image b (b * M + m = number) begins in a tensor like value.
  int64_t value_offset(int64_t number, const Level& level) const {
    const int64_t b = number / in.heads(), m = number % in.heads();
    return ((b * in.value.size(1) + level.first_position) * in.heads() + m) * in.channels();
  }

  int64_t out_offset(int64_t number) const {
    const int64_t b = number / in.heads(), m = number % in.heads();
    return (b * in.queries() * in.heads() + m) * in.channels();
  }

  int64_t step() const { return in.heads() * in.channels(); }  // to the next position or query

  template <typename U>
  Points<U> points(int64_t number, U* positions, U* weights) const {
    const int64_t b = number / in.heads(), m = number % in.heads();
    const int64_t count = in.levels() * in.points(), first = (b * in.queries() * in.heads() + m);
    const T* references = nullptr;
    if (in.references.defined()) {
      references = in.references.const_data_ptr<T>() + b * in.queries() * in.levels() * 2;
    }
    return {positions + first * count * 2, weights + first * count, in.heads() * count, references};
  }

  Points<const T> points(int64_t number) const {
    return points(number, in.positions.const_data_ptr<T>(), in.weights.const_data_ptr<T>());
  }

  void pack(int64_t number, T* plane) const {
    const S* value = in.value.const_data_ptr<S>();
    for (const Level& level : levels) {
      kernels<S>().pack(value + value_offset(number, level), step(), level, head, plane);
    }
  }

  at::Tensor planes(int64_t count) const {
    return at::empty({count, plane_size}, at::dtype(c10::CppTypeToScalarType<T>::value));
  }
};

// Each thread takes an equal share of the queries of all heads, in order, and makes the planes it
// needs itself: threads that share a head do so twice, but nobody waits.
template <typename S>
void forward_heads(const Inputs& in, at::Tensor& out) {
  using T = Sum<S>;
  const Layout<S> layout(in);
  const int64_t queries = in.queries();
  const int64_t least = std::max(16 * kBlock, queries / 4);
  S* result = out.mutable_data_ptr<S>();
  at::parallel_for(0, in.batch() * in.heads() * queries, least, [&](int64_t begin, int64_t end) {
    const at::Tensor planes = layout.planes(1);
    T* plane = planes.template mutable_data_ptr<T>();
    Workspace<T> work(layout.head);
    while (begin < end) {
      const int64_t number = begin / queries, first = number * queries;
      const int64_t stop = std::min(end, first + queries);
      layout.pack(number, plane);
      kernels<S>().forward(layout.head, plane, layout.points(number), work.block, begin - first,
                           stop - first, result + layout.out_offset(number), layout.step());
      begin = stop;
    }
  });
}

at::Tensor forward(const Inputs& in) {
  at::Tensor out =
      at::empty({in.batch(), in.queries(), in.heads() * in.channels()}, in.value.options());
  if (out.numel() == 0 || in.weights.numel() == 0) return out.zero_();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, in.value.scalar_type(),
                                  "ms_deform_attn_forward",
                                  [&] { forward_heads<scalar_t>(in, out); });
  return out;
}

struct Grads {
  at::Tensor value, positions, weights;
};

// One head of one image is one thread's work, in the order of its queries: without atomics, and the
// same sums for any number of threads.
template <typename S>
void backward_heads(const Inputs& in, const at::Tensor& grad_out, Grads& grads) {
  using T = Sum<S>;
  const Layout<S> layout(in);
  const S* grad = grad_out.const_data_ptr<S>();
  S* grad_value = grads.value.mutable_data_ptr<S>();
  T* grad_positions = grads.positions.mutable_data_ptr<T>();
  T* grad_weights = grads.weights.mutable_data_ptr<T>();
  at::parallel_for(0, in.batch() * in.heads(), 1, [&](int64_t begin, int64_t end) {
    const at::Tensor planes = layout.planes(2);
    T* plane = planes.template mutable_data_ptr<T>();
    T* grad_plane = plane + layout.plane_size;
    Workspace<T> work(layout.head);
    for (int64_t number = begin; number < end; ++number) {
      layout.pack(number, plane);
      std::fill_n(grad_plane, layout.plane_size, T(0));
      kernels<S>().backward(layout.head, plane, layout.points(number), work.block, 0,
                            in.queries(), grad + layout.out_offset(number), layout.step(),
                            grad_plane, layout.points(number, grad_positions, grad_weights));
      for (const Level& level : layout.levels) {
        kernels<S>().unpack(grad_plane, level, layout.head,
                            grad_value + layout.value_offset(number, level), layout.step());
      }
    }
  });
}

Grads backward(const at::Tensor& grad, const Inputs& in) {
  check_grad(grad, in.value, in.positions);
  Grads grads{at::empty_like(in.value), at::empty_like(in.positions), at::empty_like(in.weights)};
  if (grad.numel() == 0 || in.weights.numel() == 0) {
    return {grads.value.zero_(), grads.positions.zero_(), grads.weights.zero_()};
  }
  const at::Tensor grad_out = grad.contiguous();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, in.value.scalar_type(),
                                  "ms_deform_attn_backward",
                                  [&] { backward_heads<scalar_t>(in, grad_out, grads); });
  return grads;
}

at::Tensor ms_deform_attn_forward(const at::Tensor& value, at::IntArrayRef shapes,
                                  const at::Tensor& locations, const at::Tensor& weights) {
  return forward({value, shapes, locations, weights});
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> ms_deform_attn_backward(
    const at::Tensor& grad, const at::Tensor& value, at::IntArrayRef shapes,
    const at::Tensor& locations, const at::Tensor& weights) {
  const Grads grads = backward(grad, {value, shapes, locations, weights});
  return {grads.value, grads.positions, grads.weights};
}

at::Tensor ms_deform_attn_fused_forward(const at::Tensor& value, at::IntArrayRef shapes,
                                        const at::Tensor& reference_points,
                                        const at::Tensor& offsets, const at::Tensor& logits) {
  return forward({value, shapes, offsets, logits, reference_points});
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> ms_deform_attn_fused_backward(
    const at::Tensor& grad, const at::Tensor& value, at::IntArrayRef shapes,
    const at::Tensor& reference_points, const at::Tensor& offsets, const at::Tensor& logits) {
  const Grads grads = backward(grad, {value, shapes, offsets, logits, reference_points});
  std::vector<double> sizes;  // (w, h) of each level: a reference point moves by whole levels
  for (size_t i = 0; i < shapes.size(); i += 2) {
    sizes.push_back(static_cast<double>(shapes[i + 1]));
    sizes.push_back(static_cast<double>(shapes[i]));
  }
  const at::Tensor scale = at::tensor(sizes, offsets.options()).view({-1, 2});
  const at::Tensor grad_references = grads.positions.sum({2, 4}).mul_(scale);
  return {grads.value, grad_references, grads.positions, grads.weights};
}

}  // namespace
}  // namespace rankseg_d2

TORCH_LIBRARY_IMPL(rankseg_d2, CPU, m) {
  m.impl("ms_deform_attn_forward", rankseg_d2::ms_deform_attn_forward);
  m.impl("ms_deform_attn_backward", rankseg_d2::ms_deform_attn_backward);
  m.impl("ms_deform_attn_fused_forward", rankseg_d2::ms_deform_attn_fused_forward);
  m.impl("ms_deform_attn_fused_backward", rankseg_d2::ms_deform_attn_fused_backward);
}
