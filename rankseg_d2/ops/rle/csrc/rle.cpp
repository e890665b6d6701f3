// Sizes of masks and of what they have in common, on COCO's compressed run lengths.
//
// A code is a text: characters of 5 bits each, and a 6th that says "goes on", give signed numbers,
// lowest bits first. From the 4th number on they are differences to the number before the last one.
// The numbers are lengths of runs, column by column, of pixels outside and inside in turn.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <vector>

namespace {

using at::Tensor;

// Where a mask's runs of inside pixels begin and end, in turn, and how many pixels they have.
struct Mask {
  const int32_t* borders;
  int64_t count, area;
};

bool goes_on(uint8_t character) { return (character - '0') & 32; }

// Writes the numbers of these characters from numbers[count] on. The result: the new count.
int64_t read_any(const uint8_t* code, int64_t size, int32_t* numbers, int64_t count) {
  int64_t number = 0;
  int shift = 0;
  for (int64_t i = 0; i < size; ++i) {
    const int bits = code[i] - '0';
    TORCH_CHECK_VALUE(0 <= bits && bits < 64, "a mask's run-length code has a wrong character");
    TORCH_CHECK_VALUE(shift <= 25, "a mask's run-length code has a number that is too long");
    number |= int64_t(bits & 31) << shift;
    shift += 5;
    if (!(bits & 32)) {
      numbers[count++] = int32_t(bits & 16 ? number - (int64_t(1) << shift) : number);
      number = shift = 0;
    }
  }
  return count;
}

// The same for a block of numbers that have one character or two, as nearly all have; -1 if others
// have. No jumps: the processor could not predict how long the next number is.
constexpr int BLOCK = 32;

int64_t read_short(const uint8_t* code, int32_t* numbers, int64_t count) {
  int16_t values[BLOCK];
  uint8_t ends[BLOCK], others = 0;
  for (int i = 0; i < BLOCK; ++i) {  // each character as if it were a number's last
    const uint8_t last = code[i] - '0', first = code[i - 1] - '0', before = code[i - 2] - '0';
    const int16_t one = int16_t((last & 31) ^ 16) - 16;  // the highest bit is the sign
    const int16_t two = int16_t(((first & 31) | (last & 31) << 5) ^ 512) - 512;
    values[i] = first & 32 ? two : one;
    ends[i] = last & 32 ? 0 : 1;
    others |= (last & 192) | (first & before & 32);
  }
  if (others) {
    return -1;
  }
  for (int i = 0; i < BLOCK; ++i) {
    numbers[count] = values[i];
    count += ends[i];  // what is not a number is written over
  }
  return count;
}

// Writes the numbers of a code, at most one per character. The result: how many.
int64_t read_numbers(const uint8_t* code, int64_t size, int32_t* numbers) {
  int64_t count = 0;
  for (int64_t begin = 0; begin < size; begin += BLOCK) {
    int64_t end = begin + BLOCK, read = -1;
    if (begin > 0 && end <= size) {
      read = read_short(code + begin, numbers, count);
    }
    if (read < 0) {
      int64_t start = begin;
      while (start > 0 && goes_on(code[start - 1])) {
        --start;
      }
      read = read_any(code + start, std::min(end, size) - start, numbers, count);
    }
    count = read;
  }
  TORCH_CHECK_VALUE(size == 0 || !goes_on(code[size - 1]), "a mask's run-length code is cut off");
  return count;
}

// Reads a code. Its numbers become the borders, in the same memory.
Mask decode(const uint8_t* code, int64_t size, int32_t* borders) {
  const int64_t count = read_numbers(code, size, borders), runs = count / 2;
  if (count > 2) {
    borders[2] -= borders[0];  // as if it, too, were a difference
  }
  int64_t position = 0, area = 0, outside = 0, inside = 0, lowest = 0;
  for (int64_t i = 0; i < 2 * runs; i += 2) {
    outside += borders[i];
    inside += borders[i + 1];
    lowest = std::min({lowest, outside, inside});
    area += inside;
    borders[i] = int32_t(position += outside);
    borders[i + 1] = int32_t(position += inside);
  }
  if (count % 2) {  // the last run is outside
    outside += borders[count - 1];
    lowest = std::min(lowest, outside);
    position += outside;
  }
  TORCH_CHECK_VALUE(lowest >= 0, "a mask's run-length code has a negative length");
  TORCH_CHECK_VALUE(position <= INT32_MAX, "a mask's run-length code has too many pixels");
  return {borders, 2 * runs, area};
}

// The first run of the mask that ends after `position`.
int64_t run_after(const Mask& mask, int32_t position) {
  const int32_t* end = mask.borders + mask.count;
  return (std::upper_bound(mask.borders, end, position) - mask.borders) & ~int64_t(1);
}

int64_t common_pixels(const Mask& a, const Mask& b) {
  if (!a.count || !b.count) {
    return 0;
  }
  int64_t pixels = 0, i = run_after(a, b.borders[0]), j = run_after(b, a.borders[0]);
  while (i < a.count && j < b.count) {
    const int32_t end_a = a.borders[i + 1], end_b = b.borders[j + 1];
    const int32_t length = std::min(end_a, end_b) - std::max(a.borders[i], b.borders[j]);
    pixels += std::max(length, 0);
    i += end_a <= end_b ? 2 : 0;
    j += end_b <= end_a ? 2 : 0;
  }
  return pixels;
}

std::tuple<Tensor, Tensor> overlaps(const Tensor& codes, const Tensor& ends, const Tensor& pairs) {
  TORCH_CHECK_VALUE(pairs.dim() == 2 && pairs.size(1) == 2, "pairs must be (P, 2), but are ",
                    pairs.sizes());
  TORCH_CHECK_VALUE(codes.dim() == 1 && ends.dim() == 1, "codes and ends must have 1 dimension");
  const Tensor text = codes.contiguous(), limits = ends.contiguous(), rows = pairs.contiguous();
  const uint8_t* code = text.const_data_ptr<uint8_t>();
  const int64_t* limit = limits.const_data_ptr<int64_t>();
  const int64_t count = limits.numel();
  Tensor areas = at::empty({count}, limits.options());
  int64_t* area = areas.mutable_data_ptr<int64_t>();
  Tensor borders = at::empty({text.numel()}, limits.options().dtype(at::kInt));
  int32_t* border = borders.mutable_data_ptr<int32_t>();
  std::vector<Mask> masks(count);
  at::parallel_for(0, count, 16, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const int64_t begin = i ? limit[i - 1] : 0;
      TORCH_CHECK_VALUE(0 <= begin && begin <= limit[i] && limit[i] <= text.numel(), "wrong ends");
      masks[i] = decode(code + begin, limit[i] - begin, border + begin);
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
      pixels[i] = common_pixels(masks[a], masks[b]);
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
