// The loops themselves. Included by kernels_<instruction set>.cpp inside a namespace of its own,
// after VECTOR_BYTES is defined. Nothing here may instantiate a function from elsewhere: the linker
// keeps one copy of such a function for the whole library, and it might keep this one.

#define INLINE inline __attribute__((always_inline))

template <typename T>
struct Simd {
  typedef T Vector __attribute__((vector_size(VECTOR_BYTES)));
  typedef Index<T> Whole __attribute__((vector_size(VECTOR_BYTES)));
  static constexpr int lanes = VECTOR_BYTES / sizeof(T);

  static INLINE Vector load(const T* from) {
    Vector vector;
    __builtin_memcpy(&vector, from, sizeof(vector));
    return vector;
  }

  static INLINE Whole load(const Index<T>* from) {
    Whole vector;
    __builtin_memcpy(&vector, from, sizeof(vector));
    return vector;
  }

  template <typename U, typename V>
  static INLINE void store(U* to, V vector) {
    __builtin_memcpy(to, &vector, sizeof(vector));
  }
};

INLINE void prefetch(const void* from, int64_t bytes) {
  const char* line = static_cast<const char*>(from);
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(line + i);
}

// ---- planes

template <typename S>
void pack(const S* value, int64_t step, const Level& level, const Head<Sum<S>>& head,
          Sum<S>* plane) {
  using T = Sum<S>;
  const int64_t depth = head.depth, row = (level.width + 2) * depth;
  T* cell = plane + level.first_cell * depth;
  __builtin_memset(cell, 0, sizeof(T) * row);
  cell += row;
  for (int y = 0; y < level.height; ++y) {
    __builtin_memset(cell, 0, sizeof(T) * depth);
    cell += depth;
    for (int x = 0; x < level.width; ++x, value += step, cell += depth) {
      prefetch(value + 16 * step, head.channels * sizeof(S));
      for (int64_t c = 0; c < head.channels; ++c) cell[c] = static_cast<T>(value[c]);
      for (int64_t c = head.channels; c < depth; ++c) cell[c] = 0;
    }
    __builtin_memset(cell, 0, sizeof(T) * depth);
    cell += depth;
  }
  __builtin_memset(cell, 0, sizeof(T) * row);
}

template <typename S>
void unpack(const Sum<S>* plane, const Level& level, const Head<Sum<S>>& head, S* value,
            int64_t step) {
  const int64_t depth = head.depth, row = level.width + 2;
  for (int y = 0; y < level.height; ++y) {
    const Sum<S>* cell = plane + (level.first_cell + (y + 1) * row + 1) * depth;
    for (int x = 0; x < level.width; ++x, value += step, cell += depth) {
      for (int64_t c = 0; c < head.channels; ++c) value[c] = static_cast<S>(cell[c]);
    }
  }
}

// ---- where the points are

INLINE double exp_of(double x) { return __builtin_exp(x); }

// e^x for x <= 0, within 2 units in the last place; without a branch, so that it vectorises.
INLINE float exp_of(float x) {
  const float bounded = x < -87.0f ? -87.0f : x;  // NaN stays NaN
  const float shifted = bounded * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: rounds to a whole
  const float whole = shifted - 12582912.0f;
  const float r = (bounded - whole * 0.693145752f) - whole * 1.42860677e-6f;
  float p = 1.98412698e-4f;
  p = p * r + 1.38888889e-3f;
  p = p * r + 8.33333333e-3f;
  p = p * r + 4.16666667e-2f;
  p = p * r + 1.66666667e-1f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  int32_t bits;
  __builtin_memcpy(&bits, &shifted, sizeof(bits));
  bits = static_cast<int32_t>((static_cast<uint32_t>(bits) << 23) + 0x3f800000u);
  float power;
  __builtin_memcpy(&power, &bits, sizeof(power));
  return x < -87.0f ? 0.0f : p * power;
}

// Softmax over the `points` numbers of each query.
template <typename T>
INLINE void softmax(T* __restrict__ logits, int64_t queries, int64_t points) {
  for (int64_t q = 0; q < queries; ++q) {
    T* row = logits + q * points;
    T largest = row[0];
    for (int64_t i = 1; i < points; ++i) largest = row[i] > largest ? row[i] : largest;
    for (int64_t i = 0; i < points; ++i) row[i] -= largest;
  }
  for (int64_t i = 0; i < queries * points; ++i) logits[i] = exp_of(logits[i]);
  for (int64_t q = 0; q < queries; ++q) {
    T* row = logits + q * points;
    T total = 0;
    for (int64_t i = 0; i < points; ++i) total += row[i];
    const T share = 1 / total;
    for (int64_t i = 0; i < points; ++i) row[i] *= share;
  }
}

// Copies the inputs of queries [begin, begin + queries): x and y (offsets: from where they count,
// in pixels) and attention.
template <typename T, int kPoints>
INLINE void read_points(const Head<T>& head, const Points<const T>& points, Block<T>& block,
                        int64_t begin, int64_t queries) {
  const int64_t per_level = kPoints ? kPoints : head.points;
  const int64_t count = head.levels * per_level;
  T *__restrict__ x = block.x, *__restrict__ y = block.y, *__restrict__ attention = block.attention;
  for (int64_t q = 0; q < queries; ++q) {
    const T* __restrict__ places = points.places + (begin + q) * points.step * 2;
    const T* __restrict__ weights = points.weights + (begin + q) * points.step;
    for (int64_t l = 0; l < head.levels; ++l) {
      for (int64_t i = 0; i < per_level; ++i) x[i] = places[2 * i];
      for (int64_t i = 0; i < per_level; ++i) y[i] = places[2 * i + 1];
      for (int64_t i = 0; i < per_level; ++i) attention[i] = weights[i];
      places += 2 * per_level, weights += per_level;
      x += per_level, y += per_level, attention += per_level;
    }
  }
  if (points.references == nullptr) return;
  softmax(block.attention, queries, count);
  x = block.x, y = block.y;
  const T* reference = points.references + begin * head.levels * 2;
  for (int64_t ql = 0; ql < queries * head.levels; ++ql, reference += 2) {
    const int64_t first = ql * per_level;
    const T dx = reference[0] * head.point_levels.width[first];
    const T dy = reference[1] * head.point_levels.height[first];
    for (int64_t i = 0; i < per_level; ++i) x[first + i] += dx;
    for (int64_t i = 0; i < per_level; ++i) y[first + i] += dy;
  }
}

// Asks for the inputs of one query ahead of time; it may lie behind the last one.
template <typename T, int kPoints>
INLINE void prefetch_points(const Head<T>& head, const Points<const T>& points, int64_t query) {
  const int64_t count = head.levels * (kPoints ? kPoints : head.points);
  prefetch(points.places + query * points.step * 2, count * 2 * sizeof(T) + 63);
  prefetch(points.weights + query * points.step, count * sizeof(T) + 63);
}

// The cell and the corners' weights of each point; x and y become places between the corners.
// A point outside gets a cell of the border that has only zeros around it. What is not finite
// leaves NaN in x or y, and so in the result, as it does in the reference.
template <typename T>
INLINE void locate(const Head<T>& head, Block<T>& block, int64_t count, bool in_pixels) {
  using V = Simd<T>;
  using Vector = typename V::Vector;
  using Whole = typename V::Whole;
  const PointLevels<T>& level = head.point_levels;
  for (int64_t i = 0; i < count; i += V::lanes) {  // the last vector may end behind `count`
    const Vector width = V::load(level.width + i), height = V::load(level.height + i);
    Vector x = V::load(block.x + i), y = V::load(block.y + i);
    x = (in_pixels ? x : x * width) - T(0.5);
    y = (in_pixels ? y : y * height) - T(0.5);
    const Whole inside = (x >= T(-1)) & (x < width) & (y >= T(-1)) & (y < height);
    // Truncating what is not negative is the floor.
    const Whole column = __builtin_convertvector(inside ? x + T(1) : width + T(1), Whole);
    const Whole line = __builtin_convertvector(inside ? y + T(1) : Vector{}, Whole);
    const Whole cell = V::load(level.first_cell + i) + line * V::load(level.row + i) + column;
    x = inside ? (x + T(1)) - __builtin_convertvector(column, Vector) : x - x;
    y = inside ? (y + T(1)) - __builtin_convertvector(line, Vector) : y - y;
    const Vector attention = V::load(block.attention + i);
    const Vector lower = attention * y, upper = attention - lower;
    const Vector lower_right = lower * x, upper_right = upper * x;
    V::store(block.x + i, x);
    V::store(block.y + i, y);
    V::store(block.cell + i, cell);
    V::store(block.corner[0] + i, upper - upper_right);
    V::store(block.corner[1] + i, upper_right);
    V::store(block.corner[2] + i, lower - lower_right);
    V::store(block.corner[3] + i, lower_right);
  }
}

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
    read_points<T, kPoints>(head, points, block, start, queries);
    locate(head, block, queries * count, points.references != nullptr);
    for (int64_t q = 0; q < queries; ++q) {
      prefetch_points<T, kPoints>(head, points, start + q + kBlock);
      prefetch(out + (start + q + 4) * step, head.channels * sizeof(S));
      T* channels = block.channels;
      int64_t c = 0;
      for (; c + 32 <= depth; c += 32) {
        sum_points<T, kVectors, kPoints, kDepth>(head, plane + c, block, q * count, channels + c);
      }
      for (; c < depth; c += Simd<T>::lanes) {
        sum_points<T, 1, kPoints, kDepth>(head, plane + c, block, q * count, channels + c);
      }
      S* row = out + (start + q) * step;
      for (c = 0; c < head.channels; ++c) row[c] = static_cast<S>(channels[c]);
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

// The gradients of places and weights of a block, from the dot products.
template <typename T>
void write_grads(const Head<T>& head, Block<T>& block, const Points<T>& grads, int64_t begin,
                 int64_t queries) {
  const int64_t count = head.levels * head.points;
  const PointLevels<T>& level = head.point_levels;
  for (int64_t q = 0; q < queries; ++q) {
    T* __restrict__ places = grads.places + (begin + q) * grads.step * 2;
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
      places[2 * i] = attention[i] * across;
      places[2 * i + 1] = attention[i] * (lower - upper);
    }
    if (grads.references == nullptr) {
      for (int64_t i = 0; i < count; ++i) {
        places[2 * i] *= level.width[i];
        places[2 * i + 1] *= level.height[i];
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
    read_points<T, 0>(head, points, block, start, queries);
    locate(head, block, queries * count, points.references != nullptr);
    __builtin_memset(block.dot, 0, sizeof(T) * 4 * queries * count);
    for (int64_t q = 0; q < queries; ++q) {
      const S* row = grad_out + (start + q) * step;
      for (int64_t c = 0; c < head.channels; ++c) block.channels[c] = static_cast<T>(row[c]);
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
