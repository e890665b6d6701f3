// The loops themselves, which kernels_set.h includes. Nothing here may instantiate a function from
// elsewhere: the linker keeps one copy of such a function for the whole library, and it might keep
// this one, which not every processor can run.

#define INLINE inline __attribute__((always_inline))

#include "kernels_planes.h"
#include "kernels_points.h"

// ---- forward

// The sum over the points of one query, for `kVectors` vectors of channels.
template <typename T, int kVectors, int kPoints, int kDepth>
INLINE void sum_points(const Head<T>& head, const T* plane, const Block<T>& block, int64_t first,
                       T* out) {
  using V = Simd<T>;
  constexpr int kChains = kVectors > 4 ? 1 : kVectors > 2 ? 2 : 4;  // hide the latency of a sum
  typename V::Vector sums[kChains][kVectors] = {};
  const int64_t depth = kDepth ? kDepth : head.depth;
  const int64_t per_level = kPoints ? kPoints : head.points;
  for (int64_t l = 0; l < head.levels; ++l) {
    const int64_t row = head.point_levels.row[l * per_level] * depth;
    for (int64_t p = 0; p < per_level; ++p, ++first) {
      const T* top = plane + block.cell[first] * depth;
      const T* bottom = top + row;
      const T w00 = block.corner[0][first], w01 = block.corner[1][first];
      const T w10 = block.corner[2][first], w11 = block.corner[3][first];
      for (int v = 0; v < kVectors; ++v) {
        sums[0][v] += w00 * V::load(top + v * V::lanes);
        sums[1 % kChains][v] += w01 * V::load(top + depth + v * V::lanes);
        sums[2 % kChains][v] += w10 * V::load(bottom + v * V::lanes);
        sums[3 % kChains][v] += w11 * V::load(bottom + depth + v * V::lanes);
      }
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    typename V::Vector sum = sums[0][v];
    for (int chain = 1; chain < kChains; ++chain) sum += sums[chain][v];
    V::store(out + v * V::lanes, sum);
  }
}

// kPoints, kDepth: head.points and head.depth if they are known when this is compiled, else 0.
template <typename S, int kPoints, int kDepth>
void forward_loop(const Head<Sum<S>>& head, const Sum<S>* plane,
                  const Points<const Sum<S>>& points, Block<Sum<S>>& block, int64_t begin,
                  int64_t end, S* out, int64_t step) {
  using T = Sum<S>;
  constexpr int kVectors = 32 / Simd<T>::lanes;
  const int64_t depth = kDepth ? kDepth : head.depth;
  const int64_t count = head.levels * (kPoints ? kPoints : head.points);
  for (int64_t start = begin; start < end; start += kBlock) {
    const int64_t queries = end - start < kBlock ? end - start : kBlock;
    read_points(head, points, block, start, queries);
    locate(head, block, queries * count, points.references != nullptr);
    for (int64_t q = 0; q < queries; ++q) {
      prefetch_points(head, points, start + q + kBlock);
      prefetch(out + (start + q + 4) * step, head.channels * sizeof(S));
      S* row = out + (start + q) * step;
      T* sums = block.channels;
      if constexpr (std::is_same_v<S, T>) {
        if (head.channels == depth) sums = row;
      }
      int64_t c = 0;
      for (; c + 32 <= depth; c += 32) {
        sum_points<T, kVectors, kPoints, kDepth>(head, plane + c, block, q * count, sums + c);
      }
      for (; c < depth; c += Simd<T>::lanes) {
        sum_points<T, 1, kPoints, kDepth>(head, plane + c, block, q * count, sums + c);
      }
      if (sums == block.channels) convert(sums, row, head.channels);
    }
  }
}

template <typename S>
void forward(const Head<Sum<S>>& head, const Sum<S>* plane, const Points<const Sum<S>>& points,
             Block<Sum<S>>& block, int64_t begin, int64_t end, S* out, int64_t step) {
  const bool usual = head.points == 4 && head.depth == 32;
  (usual ? forward_loop<S, 4, 32> : forward_loop<S, 0, 0>)(head, plane, points, block, begin, end,
                                                           out, step);
}

// ---- backward

template <typename T, int kLanes>
struct Lanes {
  typedef T Vector __attribute__((vector_size(kLanes * sizeof(T))));

  static INLINE T sum(Vector vector) {
    if constexpr (kLanes == 2) {
      return vector[0] + vector[1];
    } else {
      typename Lanes<T, kLanes / 2>::Vector halves[2];
      __builtin_memcpy(halves, &vector, sizeof(vector));
      return Lanes<T, kLanes / 2>::sum(halves[0] + halves[1]);
    }
  }
};

// For `kVectors` vectors of channels: adds gradient times share to the four corners of each point
// of one query, and gradient times value to the dot products of the point.
template <typename T, int kVectors>
INLINE void spread_points(const Head<T>& head, const T* plane, T* grad_plane,
                          const Block<T>& block, int64_t first, const T* grad_out) {
  using V = Simd<T>;
  typename V::Vector grad[kVectors];
  for (int v = 0; v < kVectors; ++v) grad[v] = V::load(grad_out + v * V::lanes);
  const int64_t depth = head.depth, count = head.levels * head.points;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = first + i;
    for (int corner = 0; corner < 4; ++corner) {
      const int64_t row = corner / 2 * head.point_levels.row[i];
      const int64_t offset = (block.cell[at] + row + corner % 2) * depth;
      const T share = block.corner[corner][at];
      typename V::Vector dot = {};
      for (int v = 0; v < kVectors; ++v) {
        dot += grad[v] * V::load(plane + offset + v * V::lanes);
        T* target = grad_plane + offset + v * V::lanes;
        V::store(target, V::load(target) + share * grad[v]);
      }
      block.dot[4 * at + corner] += Lanes<T, V::lanes>::sum(dot);
    }
  }
}

// The gradients of positions and weights of a block, from the dot products.
template <typename T>
void write_grads(const Head<T>& head, Block<T>& block, const Points<T>& grads, int64_t begin,
                 int64_t queries) {
  const int64_t count = head.levels * head.points;
  const PointLevels<T>& level = head.point_levels;
  for (int64_t q = 0; q < queries; ++q) {
    T* __restrict__ positions = grads.positions + (begin + q) * grads.step * 2;
    T* __restrict__ weights = grads.weights + (begin + q) * grads.step;
    const T* __restrict__ x = block.x + q * count;
    const T* __restrict__ y = block.y + q * count;
    const T* __restrict__ attention = block.attention + q * count;
    const T* __restrict__ dot = block.dot + q * count * 4;
    for (int64_t i = 0; i < count; ++i) {
      const T d00 = dot[4 * i], d01 = dot[4 * i + 1], d10 = dot[4 * i + 2], d11 = dot[4 * i + 3];
      const T upper = d00 + x[i] * (d01 - d00), lower = d10 + x[i] * (d11 - d10);
      const T across = (d01 - d00) + y[i] * ((d11 - d10) - (d01 - d00));
      weights[i] = upper + y[i] * (lower - upper);
      positions[2 * i] = attention[i] * across;
      positions[2 * i + 1] = attention[i] * (lower - upper);
    }
    if (grads.references == nullptr) {
      for (int64_t i = 0; i < count; ++i) {
        positions[2 * i] *= level.width[i];
        positions[2 * i + 1] *= level.height[i];
      }
      continue;
    }
    T mean = 0;  // softmax backward
    for (int64_t i = 0; i < count; ++i) mean += attention[i] * weights[i];
    for (int64_t i = 0; i < count; ++i) weights[i] = attention[i] * (weights[i] - mean);
  }
}

template <typename S>
void backward(const Head<Sum<S>>& head, const Sum<S>* plane, const Points<const Sum<S>>& points,
              Block<Sum<S>>& block, int64_t begin, int64_t end, const S* grad_out, int64_t step,
              Sum<S>* grad_plane, const Points<Sum<S>>& grad_points) {
  using T = Sum<S>;
  constexpr int kVectors = 32 / Simd<T>::lanes;
  const int64_t count = head.levels * head.points;
  for (int64_t c = head.channels; c < head.depth; ++c) block.channels[c] = 0;
  for (int64_t start = begin; start < end; start += kBlock) {
    const int64_t queries = end - start < kBlock ? end - start : kBlock;
    read_points(head, points, block, start, queries);
    locate(head, block, queries * count, points.references != nullptr);
    __builtin_memset(block.dot, 0, sizeof(T) * 4 * queries * count);
    for (int64_t q = 0; q < queries; ++q) {
      const S* row = grad_out + (start + q) * step;
      convert(row, block.channels, head.channels);
      int64_t c = 0;
      for (; c + 32 <= head.depth; c += 32) {
        spread_points<T, kVectors>(head, plane + c, grad_plane + c, block, q * count,
                                   block.channels + c);
      }
      for (; c < head.depth; c += Simd<T>::lanes) {
        spread_points<T, 1>(head, plane + c, grad_plane + c, block, q * count,
                            block.channels + c);
      }
    }
    write_grads(head, block, grad_points, start, queries);
  }
}

template <typename S>
const Kernels<S>& table() {
  static constexpr Kernels<S> kernels = {pack<S>, unpack<S>, forward<S>, backward<S>};
  return kernels;
}

#undef INLINE
