// Sizes of masks and of what they have in common, on COCO's compressed run lengths.
//
// A code is a text: characters of 5 bits each, and a 6th that says "goes on", give signed numbers,
// lowest bits first. From the 4th number on they are differences to the number before the last one.
// The numbers are lengths of runs, column by column, of pixels outside and inside by turns.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <vector>

namespace {

using at::Tensor;

// Where a mask's runs of inside pixels begin and end, by turns, and how many pixels they have.
struct Runs {
  std::vector<int64_t> borders;
  int64_t area = 0;
};

// A number of any length.
int64_t long_number(const uint8_t*& code, const uint8_t* end) {
  int64_t number = 0;
  for (int shift = 0; shift < 60; shift += 5) {
    TORCH_CHECK_VALUE(code < end, "a mask's run-length code is cut off");
    const int bits = *code++ - '0';
    TORCH_CHECK_VALUE(0 <= bits && bits < 64, "a mask's run-length code has a wrong character");
    number |= int64_t(bits & 31) << shift;
    if (!(bits & 32)) {
      return bits & 16 ? number - (int64_t(32) << shift) : number;
    }
  }
  TORCH_CHECK_VALUE(false, "a mask's run-length code has a number that is too long");
}

// Nearly all numbers have one character or two: these are told apart without a jump, which the
// processor could not predict.
int64_t next_number(const uint8_t*& code, const uint8_t* end) {
  const unsigned first = *code - '0', second = code[code + 1 < end] - '0';
  if ((first & second & 32) || (first | second) > 63) {
    return long_number(code, end);
  }
  const int goes_on = first >> 5;
  const int one = int((first & 31) ^ 16) - 16;  // the highest bit is the sign
  const int two = int(((first & 31) | second << 5) ^ 512) - 512;
  code += 1 + goes_on;
  return goes_on ? two : one;
}

Runs decode(const uint8_t* code, const uint8_t* end) {
  Runs runs;
  runs.borders.resize(end - code);
  int64_t place = 0, before_last = 0, last = 0, lowest = 0;
  size_t i = 0;
  for (; code < end; ++i) {
    const int64_t length = next_number(code, end) + (i > 2 ? before_last : 0);
    before_last = last;
    last = length;
    lowest = std::min(lowest, length);
    runs.area += i & 1 ? length : 0;
    place += length;
    runs.borders[i] = place;
  }
  TORCH_CHECK_VALUE(lowest >= 0, "a mask's run-length code has a negative length");
  runs.borders.resize(i & ~size_t(1));  // the last run may be outside
  return runs;
}

int64_t common_pixels(const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
  int64_t pixels = 0;
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    const int64_t end_a = a[i + 1], end_b = b[j + 1];
    const int64_t length = std::min(end_a, end_b) - std::max(a[i], b[j]);
    pixels += std::max<int64_t>(length, 0);
    i += end_a <= end_b ? 2 : 0;
    j += end_b <= end_a ? 2 : 0;
  }
  return pixels;
}

std::tuple<Tensor, Tensor> overlaps(const Tensor& codes, const Tensor& ends, const Tensor& pairs) {
  const Tensor text = codes.contiguous(), limits = ends.contiguous(), rows = pairs.contiguous();
  const uint8_t* code = text.const_data_ptr<uint8_t>();
  const int64_t* limit = limits.const_data_ptr<int64_t>();
  const int64_t count = limits.numel();
  Tensor areas = at::empty({count}, limits.options());
  int64_t* area = areas.mutable_data_ptr<int64_t>();
  std::vector<Runs> masks(count);
  at::parallel_for(0, count, 16, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const int64_t begin = i ? limit[i - 1] : 0;
      TORCH_CHECK_VALUE(0 <= begin && begin <= limit[i] && limit[i] <= text.numel(), "wrong ends");
      masks[i] = decode(code + begin, code + limit[i]);
      area[i] = masks[i].area;
    }
  });
  Tensor common = at::empty({rows.size(0)}, limits.options());
  int64_t* pixels = common.mutable_data_ptr<int64_t>();
  const int64_t* pair = rows.const_data_ptr<int64_t>();
  at::parallel_for(0, rows.size(0), 64, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const int64_t a = pair[2 * i], b = pair[2 * i + 1];
      TORCH_CHECK_INDEX(0 <= a && a < count && 0 <= b && b < count, "a pair of no mask");
      pixels[i] = common_pixels(masks[a].borders, masks[b].borders);
    }
  });
  return {areas, common};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(rankseg_d2, m) {
  // codes of n masks one behind the other (bytes,) uint8; where each ends (n,); pairs of them (p, 2)
  // -> pixels of each mask (n,), pixels that the masks of a pair have in common (p,).
  m.def("rle_overlaps(Tensor codes, Tensor ends, Tensor pairs) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(rankseg_d2, CPU, m) {
  m.impl("rle_overlaps", overlaps);
}
