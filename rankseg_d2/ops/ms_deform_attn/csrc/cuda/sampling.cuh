// Where a point lies and what it weighs, and how a group of lanes shares the work on its row: each
// lane prepares every GROUP-th point (softmax, location, bilinear shares), hands it to the others
// through shared memory, and then all lanes gather that point, each its own VEC channels.

#pragma once

#include <math.h>
#include <string.h>

#include "problem.cuh"

namespace rankseg_d2::cuda {

// Of all of the row's logits.
template <typename Acc>
struct Softmax {
  Acc largest, inverse_sum;  // of exp(logit - largest)
  __device__ Acc operator()(Acc logit) const { return exp(logit - largest) * inverse_sum; }
};

template <int GROUP, typename Acc>
__device__ Acc sum_over_group(Acc x) {
#pragma unroll
  for (int step = GROUP / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

template <int GROUP, typename Acc>
__device__ Softmax<Acc> softmax_of(const Acc* logits, int count, int lane) {
  Acc largest = -INFINITY;
  for (int i = lane; i < count; i += GROUP) largest = fmax(largest, logits[i]);
#pragma unroll
  for (int step = GROUP / 2; step > 0; step /= 2)
    largest = fmax(largest, __shfl_xor_sync(0xffffffffu, largest, step));
  Acc sum = 0;
  for (int i = lane; i < count; i += GROUP) sum += exp(logits[i] - largest);
  return {largest, 1 / sum_over_group<GROUP>(sum)};
}

// What a group knows of its row before it looks at single points.
template <typename Acc>
struct Work {
  Row row;
  int lane, points;      // how many points the row has, on all levels
  int64_t query, index;  // of the query among all images', of the row among all queries'
  Softmax<Acc> softmax;  // where points have logits
};

template <int GROUP, typename Acc>
__device__ Work<Acc> find_work(const Problem& problem, const Points<Acc>& points) {
  Work<Acc> work{find_row<GROUP>(problem)};
  work.lane = threadIdx.x % GROUP;
  work.points = problem.levels * problem.points;
  work.query = static_cast<int64_t>(work.row.image) * problem.queries + work.row.query;
  work.index = work.query * problem.heads + work.row.head;
  if (points.references)
    work.softmax = softmax_of<GROUP>(points.weights + work.index * work.points, work.points,
                                     work.lane);
  return work;
}

// A point between four pixels. Corner c is 2 * (below) + (right).
template <typename Acc>
struct Sample {
  Acc weight;
  Acc right, below;  // how far it lies from its upper left corner, in [0, 1)
  int offset[4];     // of each corner's pixel from the image's first, in elements; -1 outside
  Grid level;

  __device__ Acc share(int corner) const {
    return (corner & 1 ? right : 1 - right) * (corner & 2 ? below : 1 - below);
  }
};

// x and y in pixels from the centre of the first one. The comparisons come before the conversions
// to int, and NaN fails them: no location whatever leads out of the level. What is not finite leaves
// NaN in the shares, and so in the row's result, as it does in the reference.
template <typename Acc>
__device__ void locate(Sample<Acc>& sample, Acc x, Acc y, int elements_per_pixel) {
  const Grid level = sample.level;
  const bool inside = x > -1 && y > -1 && x < level.width && y < level.height;
  const Acc left = inside ? floor(x) : 0, top = inside ? floor(y) : 0;
  sample.right = inside ? x - left : x - x;
  sample.below = inside ? y - top : y - y;
#pragma unroll
  for (int corner = 0; corner < 4; ++corner) {
    const int column = static_cast<int>(left) + (corner & 1);
    const int row = static_cast<int>(top) + (corner >> 1);
    const bool in_map = row >= 0 && row < level.height && column >= 0 && column < level.width;
    const int pixel = level.start + row * level.width + column;
    sample.offset[corner] = inside && in_map ? pixel * elements_per_pixel : -1;
  }
}

// Point number i of the row; past the last one, or of an inactive row, one that lies outside.
template <typename Acc>
__device__ Sample<Acc> take_sample(const Problem& problem, const Points<Acc>& points,
                                   const Work<Acc>& work, int i) {
  if (!work.row.active || i >= work.points) return {0, 0, 0, {-1, -1, -1, -1}, {0, 0, 0}};
  const int64_t point = work.index * work.points + i;
  const int l = problem.points == 4 ? i / 4 : i / problem.points;  // a shift beats a division
  const Acc half = 0.5;

  Sample<Acc> sample;
  sample.level = problem.level[l];
  sample.weight = points.weights[point];
  const Acc width = sample.level.width, height = sample.level.height;
  Acc x = points.positions[2 * point], y = points.positions[2 * point + 1];
  if (points.references) {
    const Acc* reference = points.references + 2 * (work.query * problem.levels + l);
    x += reference[0] * width - half;
    y += reference[1] * height - half;
    sample.weight = work.softmax(sample.weight);
  } else {
    x = x * width - half;
    y = y * height - half;
  }
  locate(sample, x, y, problem.heads * problem.channels);
  return sample;
}

template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {  // one 128-bit access where it is 16 bytes long
  T item[N];
};

// The samples of all lanes of a group, in shared memory. Groups are staggered by their place in
// the warp: else those that read the same point number would meet in the same banks.
template <typename Acc, int GROUP>
struct Exchange {
  Pack<Acc, 4> factor[kThreads];  // weight times share of each corner
  Pack<int, 4> offset[kThreads];

  __device__ static int slot(int point) {
    static_assert(GROUP <= 8, "lanes of a group must agree on the stagger");
    const int thread = threadIdx.x;
    return thread / GROUP * GROUP + (point ^ (thread / 8 % GROUP));
  }

  __device__ void put(int lane, const Sample<Acc>& sample) {
    const int i = slot(lane);
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      factor[i].item[corner] = sample.weight * sample.share(corner);
      offset[i].item[corner] = sample.offset[corner];
    }
  }
};

// The same address of global memory, but the compiler no longer knows what sum it is. Else it takes
// the sum apart and adds it up again for each pixel: five instructions instead of one.
template <typename T>
__device__ T* settled(T* address) {
#ifdef __CUDA_ARCH__
  asm("" : "+l"(address));
  __builtin_assume(__isGlobal(address));
#endif
  return address;
}

// The two numbers in a word: else the compiler takes each out of its register before it converts.
__device__ inline void unpack(unsigned word, const c10::BFloat16*, float& low, float& high) {
  const unsigned bits[2] = {word << 16, word & 0xffff0000u};
  memcpy(&low, &bits[0], sizeof(low));
  memcpy(&high, &bits[1], sizeof(high));
}

__device__ inline void unpack(unsigned word, const c10::Half*, float& low, float& high) {
#ifdef __CUDA_ARCH__
  __half2 halves;
  memcpy(&halves, &word, sizeof(halves));
  low = __low2float(halves);
  high = __high2float(halves);
#else
  low = c10::Half(static_cast<uint16_t>(word), c10::Half::from_bits());
  high = c10::Half(static_cast<uint16_t>(word >> 16), c10::Half::from_bits());
#endif
}

// VEC channels, or zeros where the offset is negative.
template <int VEC, typename T, typename Acc = Accumulator<T>>
__device__ void load(const T* values, int offset, Acc (&channels)[VEC]) {
  if constexpr (sizeof(T) == 2 && VEC > 1) {
    Pack<unsigned, VEC / 2> words{};
    if (offset >= 0) words = *reinterpret_cast<const Pack<unsigned, VEC / 2>*>(values + offset);
#pragma unroll
    for (int k = 0; k < VEC; k += 2)
      unpack(words.item[k / 2], values, channels[k], channels[k + 1]);
  } else {
    Pack<T, VEC> pack{};
    if (offset >= 0) pack = *reinterpret_cast<const Pack<T, VEC>*>(values + offset);
#pragma unroll
    for (int k = 0; k < VEC; ++k) channels[k] = static_cast<Acc>(pack.item[k]);
  }
}

template <int VEC, typename T, typename Acc = Accumulator<T>>
__device__ void store(T* target, const Acc (&channels)[VEC]) {
  Pack<T, VEC> pack;
#pragma unroll
  for (int k = 0; k < VEC; ++k) pack.item[k] = static_cast<T>(channels[k]);
  if constexpr (sizeof(pack) == sizeof(uint4)) {  // a plain store becomes one of each item
    uint4 word;
    memcpy(&word, &pack, sizeof(word));
    __stwb(reinterpret_cast<uint4*>(target), word);
  } else {
    *reinterpret_cast<Pack<T, VEC>*>(target) = pack;
  }
}

// Where the channels of this row's head begin, in value and its gradient.
__device__ inline int64_t first_value(const Problem& problem, const Row& row) {
  const int64_t pixels = static_cast<int64_t>(row.image) * problem.pixels;
  return (pixels * problem.heads + row.head) * problem.channels;
}

}  // namespace rankseg_d2::cuda
