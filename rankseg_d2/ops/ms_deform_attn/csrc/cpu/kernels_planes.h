// Vectors, and planes in and out. Part of kernels_impl.h, which says how to compile it.

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

// Asks for the lines of memory that hold these bytes; they need not exist.
INLINE void prefetch(const void* from, int64_t bytes) {
  const uintptr_t first = reinterpret_cast<uintptr_t>(from);
  for (uintptr_t line = first / 64 * 64; line < first + bytes; line += 64) {
    __builtin_prefetch(reinterpret_cast<const void*>(line));
  }
}

template <typename From, typename To>
INLINE void convert(const From* __restrict__ from, To* __restrict__ to, int64_t count) {
  if (count == 32) {  // as many as there often are: without a loop
    for (int64_t i = 0; i < 32; ++i) to[i] = static_cast<To>(from[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<To>(from[i]);
  }
}

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
      convert(value, cell, head.channels);
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
      convert(cell, value, head.channels);
    }
  }
}
