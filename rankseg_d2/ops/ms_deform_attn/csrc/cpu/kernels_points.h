// Where the points of a block of queries are. Part of kernels_impl.h, which says how to compile it.

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

// Splits (x, y) of consecutive points and moves them by (dx, dy).
template <typename T>
INLINE void split(const T* positions, T dx, T dy, T* x, T* y, int64_t count) {
  typedef T Four __attribute__((vector_size(4 * sizeof(T))));
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    Four a, b;
    __builtin_memcpy(&a, positions + 2 * i, sizeof(a));
    __builtin_memcpy(&b, positions + 2 * i + 4, sizeof(b));
#if defined(__clang__)
    const Four xs = __builtin_shufflevector(a, b, 0, 2, 4, 6) + dx;
    const Four ys = __builtin_shufflevector(a, b, 1, 3, 5, 7) + dy;
#else
    typedef Index<T> Mask __attribute__((vector_size(4 * sizeof(T))));
    const Four xs = __builtin_shuffle(a, b, Mask{0, 2, 4, 6}) + dx;
    const Four ys = __builtin_shuffle(a, b, Mask{1, 3, 5, 7}) + dy;
#endif
    __builtin_memcpy(x + i, &xs, sizeof(xs));
    __builtin_memcpy(y + i, &ys, sizeof(ys));
  }
  for (; i < count; ++i) {
    x[i] = positions[2 * i] + dx;
    y[i] = positions[2 * i + 1] + dy;
  }
}

// Copies the inputs of queries [begin, begin + queries): attention, and x and y as `locate` takes
// them: locations, or pixels where there are references.
template <typename T>
INLINE void read_points(const Head<T>& head, const Points<const T>& points, Block<T>& block,
                        int64_t begin, int64_t queries) {
  const int64_t count = head.levels * head.points;
  const PointLevels<T>& level = head.point_levels;
  T *x = block.x, *y = block.y, *attention = block.attention;
  for (int64_t q = begin; q < begin + queries; ++q, x += count, y += count, attention += count) {
    const T* positions = points.positions + q * points.step * 2;
    const T* weights = points.weights + q * points.step;
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) __builtin_memcpy(attention + i, weights + i, 4 * sizeof(T));
    for (; i < count; ++i) attention[i] = weights[i];
    if (points.references == nullptr) {
      split(positions, T(0), T(0), x, y, count);
      continue;
    }
    const T* reference = points.references + q * head.levels * 2;
    for (int64_t first = 0; first < count; first += head.points, reference += 2) {
      split(positions + 2 * first, reference[0] * level.width[first],
            reference[1] * level.height[first], x + first, y + first, head.points);
    }
  }
  if (points.references != nullptr) softmax(block.attention, queries, count);
}

// Asks for the inputs of one query ahead of time; it may lie behind the last one.
template <typename T>
INLINE void prefetch_points(const Head<T>& head, const Points<const T>& points, int64_t query) {
  const int64_t count = head.levels * head.points;
  prefetch(points.positions + query * points.step * 2, count * 2 * sizeof(T));
  prefetch(points.weights + query * points.step, count * sizeof(T));
}

// The cell and the corners' weights of each point; x and y become positions between the corners.
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
