// The problem as the kernels get it, and which of their threads does what.
//
// A "row" is one head of one query. GROUP neighbouring lanes of a warp work on one row.

#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "../value_types.h"

namespace rankseg_d2::cuda {

constexpr int kThreads = 256;     // of a block
constexpr int kMaxLevels = 32;    // they travel as kernel parameters, that is in constant memory
constexpr int kTileWidth = 8;     // queries side by side in the tile of one block
constexpr int kMaxGridY = 65535;  // blocks along y, and z

template <typename T>
using Accumulator = std::conditional_t<std::is_same_v<T, double>, double, float>;

// A level, or the queries of one.
struct Grid {
  int height, width;
  int start;  // its first position, or query
};

struct Problem {
  int batch, pixels, queries, heads, channels, levels, points;
  Grid level[kMaxLevels];
  // The queries as maps, so that a block takes a tile of neighbours, whose points share pixels.
  int query_maps, tiles;
  Grid query_map[kMaxLevels];
  int first_tile[kMaxLevels], tiles_across[kMaxLevels];
  bool heads_together;  // order of the blocks of an image, see find_row
};

// Where the points of a row are and what they weigh: either locations in [0, 1] and weights, or,
// with reference points, offsets in pixels and logits of a softmax over the row.
template <typename Acc>
struct Points {
  const Acc* positions;   // (B, Q, M, L, P, 2)
  const Acc* weights;     // (B, Q, M, L, P)
  const Acc* references;  // (B, Q, L, 2), or null
};

// Raw pointers come beside it: all contiguous, those to value and its gradient aligned to 16 bytes.
struct Sizes {
  int batch, queries, heads, channels, points, levels;
  const int64_t* shapes;  // h0, w0, h1, w1, …, on the host
};

// Query tiles of `group` lanes per row. In an encoder each pixel asks: the queries are the levels.
// Any other queries count as a map of the tile's width, so that a tile is a run of queries.
inline Problem describe(const Sizes& sizes, int group, bool heads_together) {
  const auto ceil_div = [](int a, int b) { return (a + b - 1) / b; };
  Problem problem{};
  problem.batch = sizes.batch;
  problem.queries = sizes.queries;
  problem.heads = sizes.heads;
  problem.channels = sizes.channels;
  problem.levels = sizes.levels;
  problem.points = sizes.points;
  for (int i = 0; i < sizes.levels; ++i) {
    const int height = static_cast<int>(sizes.shapes[2 * i]);
    const int width = static_cast<int>(sizes.shapes[2 * i + 1]);
    problem.level[i] = {height, width, problem.pixels};
    problem.pixels += height * width;
  }
  const bool encoder = problem.pixels == sizes.queries;
  problem.query_maps = encoder ? sizes.levels : 1;
  const int tile_height = kThreads / group / kTileWidth;
  for (int i = 0; i < problem.query_maps; ++i) {
    const Grid run{ceil_div(sizes.queries, kTileWidth), kTileWidth, 0};
    const Grid map = encoder ? problem.level[i] : run;
    problem.query_map[i] = map;
    problem.first_tile[i] = problem.tiles;
    problem.tiles_across[i] = ceil_div(map.width, kTileWidth);
    problem.tiles += ceil_div(map.height, tile_height) * problem.tiles_across[i];
  }
  problem.heads_together = heads_together && problem.tiles <= kMaxGridY;
  return problem;
}

struct Row {
  int image, head, query;
  bool active;  // false beyond the end of a map: such a row, of query 0, adds and writes nothing
};

// The row of this thread. Blocks go image by image; within one, either tile by tile with all heads
// together, so that the points, which lie side by side, are read but once; or head by head, so that
// one head's values and their gradient stay in the L2 cache.
template <int GROUP>
__device__ Row find_row(const Problem& problem) {
  constexpr int tile_height = kThreads / GROUP / kTileWidth;
  const int head = problem.heads_together ? blockIdx.x : blockIdx.y;
  const int tile = problem.heads_together ? blockIdx.y : blockIdx.x;
  int i = 0;
  while (i + 1 < problem.query_maps && tile >= problem.first_tile[i + 1]) ++i;
  const Grid map = problem.query_map[i];
  const int down = (tile - problem.first_tile[i]) / problem.tiles_across[i];
  const int across = (tile - problem.first_tile[i]) % problem.tiles_across[i];
  const int slot = threadIdx.x / GROUP;
  const int x = across * kTileWidth + slot % kTileWidth;
  const int y = down * tile_height + slot / kTileWidth;
  const int query = map.start + y * map.width + x;
  const bool active = x < map.width && y < map.height && query < problem.queries;
  return {static_cast<int>(blockIdx.z), head, active ? query : 0, active};
}

// How many lanes share a row: 32 channels make 8 lanes of four floats, or 4 lanes of eight halves.
template <int VEC>
constexpr int kGroup = VEC == 8 ? 4 : 8;

// Calls launch with the number of channels that a lane takes: as many as fit in 16 bytes, if all
// pixels begin at a multiple of that; else, and for doubles, one.
template <typename T, typename Launch>
cudaError_t with_vector_width(int channels, Launch launch) {
  constexpr int vec = std::is_same_v<T, double> ? 1 : 16 / sizeof(T);
  if (vec > 1 && channels % vec == 0) return launch(std::integral_constant<int, vec>{});
  return launch(std::integral_constant<int, 1>{});
}

inline cudaLaunchConfig_t launch_config(const Problem& problem, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = problem.heads_together ? dim3(problem.heads, problem.tiles, problem.batch)
                                          : dim3(problem.tiles, problem.heads, problem.batch);
  config.blockDim = dim3(kThreads);
  config.stream = stream;
  return config;
}

template <typename T>
cudaError_t forward(const Sizes& sizes, Points<Accumulator<T>> points, const T* value, T* out,
                    cudaStream_t stream);

// Gradients of the points are written, that of value is added to.
template <typename T>
cudaError_t backward(const Sizes& sizes, Points<Accumulator<T>> points, const T* value,
                     const T* grad, Accumulator<T>* grad_value, Accumulator<T>* grad_positions,
                     Accumulator<T>* grad_weights, cudaStream_t stream);

}  // namespace rankseg_d2::cuda
