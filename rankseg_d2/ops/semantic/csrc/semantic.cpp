// From the masks of queries and their class probabilities to the best class of each pixel, tile by
// tile: no map of a query or of a class is ever held at the size of the image.
//
// As torch does it with whole maps: masks go to the size of the network's input, bilinearly, its
// padding is cut off, the rest goes to the size of the output; the sigmoid is taken after the first
// step or after the second. A class's score at a pixel is the sum over the queries of probability
// times mask.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <vector>

namespace {

using at::Tensor;

constexpr int64_t kRows = 8, kColumns = 128;  // of a tile: what it needs stays in a core's cache

// Between which two places of the input each place of the output lies along one dimension, and
// how far from the first one to the second.
template <typename T>
struct Axis {
  std::vector<int64_t> first, second;
  std::vector<T> share;

  Axis(int64_t from, int64_t to) : first(to), second(to), share(to) {
    const T scale = T(from) / T(to);
    for (int64_t i = 0; i < to; ++i) {
      const T place = std::max(T(0), scale * (T(i) + T(0.5)) - T(0.5));
      first[i] = std::min(int64_t(place), from - 1);
      second[i] = std::min(first[i] + 1, from - 1);
      share[i] = std::min(place - T(first[i]), T(1));
    }
  }
};

struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

// The part of the input that a part of the output is made of.
template <typename T>
Range needed(const Axis<T>& axis, Range part) {
  return {axis.first[part.begin], axis.second[part.end - 1] + 1};
}

// One of the two steps: whole maps of one size to whole maps of another.
template <typename T>
struct Step {
  Axis<T> y, x;
  bool is_identity;

  Step(int64_t height, int64_t width, int64_t to_height, int64_t to_width)
      : y(height, to_height), x(width, to_width),
        is_identity(height == to_height && width == to_width) {}
};

// A part of Q maps: its rows and columns, and the strides in memory.
template <typename T>
struct Part {
  const T* data;  // of map 0, at the first row and column
  int64_t map, row;
  Range rows, columns;
};

// Resizes the maps of `from` to the rows and columns of the output, which has no gaps.
template <typename T>
void resize(const Step<T>& step, const Part<T>& from, int64_t maps, Range rows, Range columns,
            std::vector<T>& wide, T* out) {
  const int64_t width = columns.size(), height = from.rows.size();
  wide.resize(height * width);
  const int64_t* left = step.x.first.data() + columns.begin;
  const int64_t* right = step.x.second.data() + columns.begin;
  const T* across = step.x.share.data() + columns.begin;
  for (int64_t map = 0; map < maps; ++map) {
    for (int64_t y = 0; y < height; ++y) {
      const T* row = from.data + map * from.map + y * from.row - from.columns.begin;
      T* target = wide.data() + y * width;
      for (int64_t x = 0; x < width; ++x) {
        const T a = row[left[x]], b = row[right[x]];
        target[x] = a + across[x] * (b - a);
      }
    }
    for (int64_t y = rows.begin; y < rows.end; ++y, out += width) {
      const T* upper = wide.data() + (step.y.first[y] - from.rows.begin) * width;
      const T* lower = wide.data() + (step.y.second[y] - from.rows.begin) * width;
      const T down = step.y.share[y];
      for (int64_t x = 0; x < width; ++x) {
        out[x] = upper[x] + down * (lower[x] - upper[x]);
      }
    }
  }
}

template <typename T>
void best_of(const T* scores, int64_t classes, int64_t pixels, T* best, int32_t* index) {
  std::copy(scores, scores + pixels, best);
  std::fill(index, index + pixels, 0);
  for (int64_t c = 1; c < classes; ++c) {
    const T* row = scores + c * pixels;
    for (int64_t i = 0; i < pixels; ++i) {
      const bool is_better = row[i] > best[i];
      index[i] = is_better ? int32_t(c) : index[i];
      best[i] = is_better ? row[i] : best[i];
    }
  }
}

// What a thread works in.
template <typename T>
struct Space {
  Tensor masks, scores;
  std::vector<T> wide, padded, best;
  std::vector<int32_t> index;
};

template <typename T>
struct Image {
  Tensor weights;  // (K, Q)
  const T* masks;
  int64_t queries, height, width;
  Step<T> to_padded, to_output;
  bool resize_first;
  int64_t out_width;
  int64_t* labels;
  T* scores;  // or null
  int64_t out_pixels;

  void tile(Range rows, Range columns, Space<T>& space) const {
    const int64_t pixels = rows.size() * columns.size();
    Tensor maps = space.masks.narrow(0, 0, queries * pixels).view({queries, pixels});
    fill(maps, rows, columns, space);
    Tensor mixed = space.scores.narrow(0, 0, weights.size(0) * pixels).view({-1, pixels});
    at::mm_out(mixed, weights, maps);
    const T* found = mixed.const_data_ptr<T>();
    space.best.resize(pixels);
    space.index.resize(pixels);
    best_of(found, weights.size(0), pixels, space.best.data(), space.index.data());
    for (int64_t y = 0; y < rows.size(); ++y) {
      const int64_t from = y * columns.size(), to = (rows.begin + y) * out_width + columns.begin;
      std::copy_n(space.index.data() + from, columns.size(), labels + to);
      for (int64_t c = 0; scores && c < weights.size(0); ++c) {
        std::copy_n(found + c * pixels + from, columns.size(), scores + c * out_pixels + to);
      }
    }
  }

  // Mask probabilities (Q, pixels) of a tile of the output.
  void fill(Tensor& maps, Range rows, Range columns, Space<T>& space) const {
    T* out = maps.mutable_data_ptr<T>();
    const Range low_rows = needed(to_output.y, rows), low_columns = needed(to_output.x, columns);
    if (to_output.is_identity) {
      enlarge(rows, columns, space, out);
      maps.sigmoid_();
      return;
    }
    const int64_t low_pixels = low_rows.size() * low_columns.size();
    space.padded.resize(queries * low_pixels);
    enlarge(low_rows, low_columns, space, space.padded.data());
    if (!resize_first) {
      at::from_blob(space.padded.data(), {queries, low_pixels}, maps.options()).sigmoid_();
    }
    const Part<T> part{space.padded.data(), low_pixels, low_columns.size(), low_rows, low_columns};
    resize(to_output, part, queries, rows, columns, space.wide, out);
    if (resize_first) {
      maps.sigmoid_();
    }
  }

  // Masks (Q, rows, columns) of a part of the network's input.
  void enlarge(Range rows, Range columns, Space<T>& space, T* out) const {
    const Range low_rows = needed(to_padded.y, rows), low_columns = needed(to_padded.x, columns);
    const Part<T> part{masks + low_rows.begin * width + low_columns.begin, height * width, width,
                       low_rows, low_columns};
    resize(to_padded, part, queries, rows, columns, space.wide, out);
  }
};

int64_t tiles(int64_t size, int64_t step) { return (size + step - 1) / step; }

std::tuple<Tensor, Tensor> best_classes(const Tensor& masks, const Tensor& weights,
                                        at::IntArrayRef sizes, bool resize_first,
                                        bool with_scores) {
  TORCH_CHECK_VALUE(masks.dim() == 3 && weights.dim() == 2 && sizes.size() == 6,
                    "masks must be (Q, h, w), weights (K, Q), and there must be six sizes");
  TORCH_CHECK_VALUE(weights.size(1) == masks.size(0) && weights.size(0) > 0,
                    "weights must be (K, Q) with K > 0 and a column for each mask, but there are ",
                    weights.sizes(), " weights for masks ", masks.sizes());
  TORCH_CHECK_VALUE(weights.scalar_type() == masks.scalar_type(), "weights and masks must agree");
  const int64_t height = sizes[4], width = sizes[5];
  TORCH_CHECK_VALUE(masks.size(1) > 0 && masks.size(2) > 0 &&
                        *std::min_element(sizes.begin(), sizes.end()) > 0 &&
                        sizes[2] <= sizes[0] && sizes[3] <= sizes[1],
                    "sizes must be positive, and the image within the network's input");
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  const Tensor maps = masks.contiguous(), mixture = weights.contiguous();
  Tensor labels = at::empty({height, width}, masks.options().dtype(at::kLong));
  const int64_t classes = with_scores ? weights.size(0) : 0;
  Tensor scores = at::empty({classes, height, width}, masks.options());
  AT_DISPATCH_FLOATING_TYPES(masks.scalar_type(), "best_classes", [&] {
    const Image<scalar_t> image{
        mixture, maps.const_data_ptr<scalar_t>(), maps.size(0), maps.size(1), maps.size(2),
        Step<scalar_t>(maps.size(1), maps.size(2), sizes[0], sizes[1]),
        Step<scalar_t>(sizes[2], sizes[3], height, width), resize_first, width,
        labels.mutable_data_ptr<int64_t>(),
        with_scores ? scores.mutable_data_ptr<scalar_t>() : nullptr, height * width};
    const int64_t across = tiles(width, kColumns);
    at::parallel_for(0, tiles(height, kRows) * across, 1, [&](int64_t begin, int64_t end) {
      at::AutoDispatchBelowADInplaceOrView below_autograd_here;
      Space<scalar_t> space;
      space.masks = at::empty({maps.size(0) * kRows * kColumns}, maps.options());
      space.scores = at::empty({mixture.size(0) * kRows * kColumns}, maps.options());
      for (int64_t i = begin; i < end; ++i) {
        const int64_t y = i / across * kRows, x = i % across * kColumns;
        image.tile({y, std::min(y + kRows, height)}, {x, std::min(x + kColumns, width)}, space);
      }
    });
  });
  return {labels, scores};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(rankseg_d2, m) {
  // masks (Q, h, w), logits; weights (K, Q); sizes: height and width of the network's input, of
  // the image in it, of the output -> the best class of each pixel (H, W), and scores (K, H, W),
  // of no class unless with_scores.
  m.def(
      "best_classes(Tensor masks, Tensor weights, int[] sizes, bool resize_first,"
      " bool with_scores) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(rankseg_d2, CPU, m) {
  m.impl("best_classes", best_classes);
}
