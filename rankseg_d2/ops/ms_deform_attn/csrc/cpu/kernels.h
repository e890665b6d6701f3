// The interface between the vectorised loops and their caller. The loops (kernels_impl.h) are
// compiled once per instruction set; `kernels<S>()` is the best set that this processor has.
//
// One head of one image at a time is unpacked into a *plane*: its levels one after the other, each
// with a border of zeros one cell wide, a cell being the head's channels, padded to whole vectors,
// in the type of the sums. So the loops know no half types, no strides and no branches for what
// lies outside, and a plane is small enough for the cache of a core.

#pragma once

#include <cstdint>
#include <type_traits>

#include "../value_types.h"

namespace rankseg_d2 {

constexpr int64_t kBlock = 16;   // queries whose points are located together
constexpr int64_t kPadding = 16; // a cell's channels are a multiple: the longest vector of floats

template <typename S>
using Sum = std::conditional_t<std::is_same_v<S, double>, double, float>;

template <typename T>  // as wide as T: comparisons of vectors give such integers
using Index = std::conditional_t<std::is_same_v<T, double>, int64_t, int32_t>;

struct Level {
  int32_t height, width;
  int64_t first_position;  // in value
  int32_t first_cell;      // in the plane
};

// The level of each point of a block of queries.
template <typename T>
struct PointLevels {
  const T *width, *height;
  const Index<T> *first_cell, *row;  // row: cells from one row to the next
};

// The points of one head of one image, in the inputs or in their gradients.
template <typename T>
struct Points {
  T* positions;   // (x, y) of query 0: locations, or offsets where there are references
  T* weights;     // of query 0: attention weights, or logits where there are references
  int64_t step;   // weights from one query to the next; positions take two numbers for each
  const T* references;  // (L, 2) of query 0, or null
};

// The points of one block of queries, point by point.
template <typename T>
struct Block {
  T *x, *y;        // from the cell's centre to the next one's: in [0, 1)
  T *attention;
  T *corner[4];    // attention times the bilinear share of (0, 0), (0, 1), (1, 0), (1, 1)
  T *dot;          // 4 per point: gradient of the output times value, at the same corners
  T *channels;     // one cell per query
  Index<T> *cell;  // of corner (0, 0)
};

template <typename T>
struct Head {
  int64_t levels, points;   // points of one query on one level
  int64_t channels, depth;  // depth: channels with their padding
  PointLevels<T> point_levels;
};

template <typename S>
struct Kernels {
  using T = Sum<S>;
  // value: channel 0 of this head at the level's first position; step: to the next position.
  void (*pack)(const S* value, int64_t step, const Level&, const Head<T>&, T* plane);
  void (*unpack)(const T* plane, const Level&, const Head<T>&, S* value, int64_t step);
  void (*forward)(const Head<T>&, const T* plane, const Points<const T>&, Block<T>&,
                  int64_t begin, int64_t end, S* out, int64_t step);
  // Adds to `grad_plane`, writes `grad_points`.
  void (*backward)(const Head<T>&, const T* plane, const Points<const T>&, Block<T>&,
                   int64_t begin, int64_t end, const S* grad_out, int64_t step, T* grad_plane,
                   const Points<T>& grad_points);
};

template <typename S>
const Kernels<S>& kernels();

}  // namespace rankseg_d2
