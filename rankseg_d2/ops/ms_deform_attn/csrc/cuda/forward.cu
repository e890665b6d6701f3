#include "sampling.cuh"

namespace rankseg_d2::cuda {
namespace {

template <typename T, int VEC>
__global__ void __launch_bounds__(kThreads, 4)
forward_kernel(const Problem problem, const Points<Accumulator<T>> points,
               const T* __restrict__ value, T* __restrict__ out) {
  using Acc = Accumulator<T>;
  constexpr int GROUP = kGroup<VEC>;
  __shared__ Exchange<Acc, GROUP> exchange;

  const Work<Acc> work = find_work<GROUP>(problem, points);
  // One turn where a group's lanes hold all channels. Lanes without a channel help with points.
  for (int first = 0; first < problem.channels; first += GROUP * VEC) {
    const int channel = first + work.lane * VEC;
    const bool mine = channel < problem.channels;
    const T* values = settled(value + first_value(problem, work.row) + (mine ? channel : 0));
    Acc sum[VEC] = {};
    for (int start = 0; start < work.points; start += GROUP) {
      exchange.put(work.lane, take_sample(problem, points, work, start + work.lane));
      __syncwarp();
      const int count = min(GROUP, work.points - start);
#pragma unroll 2
      for (int p = 0; p < count; ++p) {
        const auto factor = exchange.factor[exchange.slot(p)];
        const auto offset = exchange.offset[exchange.slot(p)];
        Acc corner[4][VEC];
#pragma unroll
        for (int c = 0; c < 4; ++c) load<VEC>(values, offset.item[c], corner[c]);
#pragma unroll
        for (int c = 0; c < 4; ++c)
#pragma unroll
          for (int k = 0; k < VEC; ++k) sum[k] += factor.item[c] * corner[c][k];
      }
      __syncwarp();
    }
    if (work.row.active && mine)
      store<VEC>(out + work.index * problem.channels + channel, sum);
  }
}

}  // namespace

template <typename T>
cudaError_t forward(const Sizes& sizes, Points<Accumulator<T>> points, const T* value, T* out,
                    cudaStream_t stream) {
  return with_vector_width<T>(sizes.channels, [&](auto width) {
    constexpr int VEC = decltype(width)::value;
    const Problem problem = describe(sizes, kGroup<VEC>, /*heads_together=*/true);
    const auto config = launch_config(problem, stream);
    return cudaLaunchKernelEx(&config, forward_kernel<T, VEC>, problem, points, value, out);
  });
}

#define INSTANTIATE(T)                                                                       \
  template cudaError_t forward<T>(const Sizes&, Points<Accumulator<T>>, const T*, T*, cudaStream_t);
FOR_EACH_VALUE_TYPE(INSTANTIATE)
#undef INSTANTIATE

}  // namespace rankseg_d2::cuda
