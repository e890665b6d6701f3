#include "sampling.cuh"

// Whether global memory can add four floats at once (Hopper and newer).
#ifndef RANKSEG_D2_VECTOR_ADD
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900 && CUDART_VERSION >= 12010
#define RANKSEG_D2_VECTOR_ADD 1
#else
#define RANKSEG_D2_VECTOR_ADD 0
#endif
#endif

namespace rankseg_d2::cuda {
namespace {

// How many blocks a multiprocessor shall hold: as many as cost no more than a few spilled
// registers.
template <typename T>
constexpr int kBlocks = std::is_same_v<T, double> ? 1 : RANKSEG_D2_VECTOR_ADD ? 3 : 2;

[[maybe_unused]] __device__ void add_four(float* target, float a, float b, float c, float d) {
#if defined(__CUDA_ARCH__) && RANKSEG_D2_VECTOR_ADD
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(target), "f"(a),
               "f"(b), "f"(c), "f"(d));
#else
  atomicAdd(target, a);
  atomicAdd(target + 1, b);
  atomicAdd(target + 2, c);
  atomicAdd(target + 3, d);
#endif
}

// Which channels a lane adds to the gradient of value: the ones that it loads, four at a time,
// where the chip can add so. Else every GROUP-th one, so that a group's instruction fills a sector
// of the L2 cache, which adds sector by sector.
template <typename Acc, int VEC, int GROUP>
struct Added {
  static constexpr bool fours =
      RANKSEG_D2_VECTOR_ADD && VEC % 4 == 0 && std::is_same_v<Acc, float>;
  static constexpr int step = fours ? 1 : GROUP;  // from one of them to the next

  __device__ static int first(int lane) { return fours ? lane * VEC : lane; }

  // target: the first one's address. left: how many channels there are from it on.
  __device__ static void add(Acc* target, int left, Acc factor, const Acc (&grad)[VEC]) {
#pragma unroll
    for (int k = 0; k < VEC; k += fours ? 4 : 1) {
      if (k * step >= left) continue;
      if constexpr (fours)
        add_four(target + k, factor * grad[k], factor * grad[k + 1], factor * grad[k + 2],
                 factor * grad[k + 3]);
      else
        atomicAdd(target + k * step, factor * grad[k]);
    }
  }
};

// Products of the output's gradient with the four corners of a point.
template <typename Acc>
struct Dots {
  Acc corner[4] = {0, 0, 0, 0};
};

// Calls `dots_of(p)` for p = first, …, first + COUNT - 1, in all lanes; lane p of the group gets
// the sum over the group of the dots of p. A tree that halves points and lanes at once: COUNT - 1
// exchanges instead of COUNT * log2(COUNT).
template <int COUNT, typename Acc, typename F>
__device__ Dots<Acc> sum_for_each_lane(int first, int lane, const F& dots_of) {
  if constexpr (COUNT == 1) {
    return dots_of(first);
  } else {
    constexpr int half = COUNT / 2;
    const Dots<Acc> low = sum_for_each_lane<half, Acc>(first, lane, dots_of);
    const Dots<Acc> high = sum_for_each_lane<half, Acc>(first + half, lane, dots_of);
    Dots<Acc> sum;
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const Acc keep = lane & half ? high.corner[c] : low.corner[c];
      const Acc give = lane & half ? low.corner[c] : high.corner[c];
      sum.corner[c] = keep + __shfl_xor_sync(0xffffffffu, give, half);
    }
    return sum;
  }
}

// Gradients of a point, from its dots: of its weight, and of its position in pixels.
template <typename Acc>
struct PointGradient {
  Acc weight = 0, x = 0, y = 0;
};

template <typename Acc>
__device__ PointGradient<Acc> differentiate(const Sample<Acc>& sample, const Dots<Acc>& dots) {
  const Acc* d = dots.corner;
  PointGradient<Acc> grad;
#pragma unroll
  for (int c = 0; c < 4; ++c) grad.weight += sample.share(c) * d[c];
  const Acc left = 1 - sample.right, above = 1 - sample.below;
  grad.x = sample.weight * (above * (d[1] - d[0]) + sample.below * (d[3] - d[2]));
  grad.y = sample.weight * (left * (d[2] - d[0]) + sample.right * (d[3] - d[1]));
  return grad;
}

// The channels of a lane in one turn of its group, and what it does with a point.
template <typename T, int VEC, int GROUP>
struct Channels {
  using Acc = Accumulator<T>;
  using Adds = Added<Acc, VEC, GROUP>;
  const T* values;
  Acc* grad_values;
  int left;  // channels from the first added one on
  Acc grad[VEC], added[VEC];

  // All pointers to the row's first channel, in pixel 0.
  __device__ Channels(const T* value, const T* grad_row, Acc* grad_value, int first, int lane,
                      int count) {
    const int channel = first + lane * VEC, added_channel = first + Adds::first(lane);
    const bool mine = channel < count;
    values = settled(value + (mine ? channel : 0));
    grad_values = settled(grad_value + added_channel);
    left = count - added_channel;
    load<VEC>(grad_row + channel, mine ? 0 : -1, grad);
#pragma unroll
    for (int k = 0; k < VEC; ++k)
      if constexpr (Adds::fours || VEC == 1)
        added[k] = grad[k];
      else
        added[k] = k * GROUP < left ? static_cast<Acc>(grad_row[added_channel + k * GROUP]) : 0;
  }

  __device__ Dots<Acc> visit(Pack<Acc, 4> factor, Pack<int, 4> offset) const {
    Acc corner[4][VEC];
    Dots<Acc> dots;
#pragma unroll
    for (int c = 0; c < 4; ++c) load<VEC>(values, offset.item[c], corner[c]);
#pragma unroll
    for (int c = 0; c < 4; ++c) {
#pragma unroll
      for (int k = 0; k < VEC; ++k) dots.corner[c] += grad[k] * corner[c][k];
      if (offset.item[c] >= 0)
        Adds::add(grad_values + offset.item[c], left, factor.item[c], added);
    }
    return dots;
  }
};

template <typename T, int VEC>
__global__ void __launch_bounds__(kThreads, kBlocks<T>)
backward_kernel(const Problem problem, const Points<Accumulator<T>> points,
                const T* __restrict__ value, const T* __restrict__ grad_out,
                Accumulator<T>* __restrict__ grad_value,
                Accumulator<T>* __restrict__ grad_positions,
                Accumulator<T>* __restrict__ grad_weights) {
  using Acc = Accumulator<T>;
  constexpr int GROUP = kGroup<VEC>;
  __shared__ Exchange<Acc, GROUP> exchange;

  const Work<Acc> work = find_work<GROUP>(problem, points);
  const int64_t first_in_value = first_value(problem, work.row);
  Acc mean = 0;  // of the weights' gradients, over the row, by weight: softmax subtracts it
  for (int start = 0; start < work.points; start += GROUP) {
    const int i = start + work.lane;
    const Sample<Acc> sample = take_sample(problem, points, work, i);
    exchange.put(work.lane, sample);
    __syncwarp();
    Dots<Acc> dots;  // of point i
    for (int first = 0; first < problem.channels; first += GROUP * VEC) {
      const Channels<T, VEC, GROUP> channels(
          value + first_in_value, grad_out + work.index * problem.channels,
          grad_value + first_in_value, first, work.lane, problem.channels);
      const auto dots_of = [&](int p) {
        if (start + p >= work.points) return Dots<Acc>{};
        const auto factor = exchange.factor[exchange.slot(p)];
        const auto offset = exchange.offset[exchange.slot(p)];
        return channels.visit(factor, offset);
      };
      const Dots<Acc> sums = sum_for_each_lane<GROUP, Acc>(0, work.lane, dots_of);
#pragma unroll
      for (int c = 0; c < 4; ++c) dots.corner[c] += sums.corner[c];
    }
    __syncwarp();
    const PointGradient<Acc> grad = differentiate(sample, dots);
    mean += sample.weight * grad.weight;
    if (work.row.active && i < work.points) {
      const int64_t point = work.index * work.points + i;
      const Acc width = sample.level.width, height = sample.level.height;
      grad_weights[point] = grad.weight;
      grad_positions[2 * point] = points.references ? grad.x : grad.x * width;
      grad_positions[2 * point + 1] = points.references ? grad.y : grad.y * height;
    }
  }
  if (!points.references) return;
  mean = sum_over_group<GROUP>(mean);
  for (int i = work.lane; work.row.active && i < work.points; i += GROUP) {
    const int64_t point = work.index * work.points + i;  // written above by this same lane
    grad_weights[point] = work.softmax(points.weights[point]) * (grad_weights[point] - mean);
  }
}

}  // namespace

template <typename T>
cudaError_t backward(const Sizes& sizes, Points<Accumulator<T>> points, const T* value,
                     const T* grad, Accumulator<T>* grad_value, Accumulator<T>* grad_positions,
                     Accumulator<T>* grad_weights, cudaStream_t stream) {
  return with_vector_width<T>(sizes.channels, [&](auto width) {
    constexpr int VEC = decltype(width)::value;
    const Problem problem = describe(sizes, kGroup<VEC>, /*heads_together=*/false);
    const auto config = launch_config(problem, stream);
    return cudaLaunchKernelEx(&config, backward_kernel<T, VEC>, problem, points, value, grad,
                              grad_value, grad_positions, grad_weights);
  });
}

#define INSTANTIATE(T)                                                                        \
  template cudaError_t backward<T>(const Sizes&, Points<Accumulator<T>>, const T*, const T*,  \
                                   Accumulator<T>*, Accumulator<T>*, Accumulator<T>*,         \
                                   cudaStream_t);
FOR_EACH_VALUE_TYPE(INSTANTIATE)
#undef INSTANTIATE

}  // namespace rankseg_d2::cuda
