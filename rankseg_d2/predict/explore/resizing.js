"use strict";
// Arrays of the page, and maps at other sizes, as PyTorch resizes them.

const TYPES = { float32: Float32Array, uint16: Uint16Array, uint8: Uint8Array };

// The array that `pack` in packing.py has made.
async function unpack({ type, data }) {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new TYPES[type](await new Response(stream).arrayBuffer());
}

// Where `wanted` samples lie between `size` ones (bilinear, align_corners false).
function taps(size, wanted) {
  const low = new Int32Array(wanted), high = new Int32Array(wanted);
  const share = new Float64Array(wanted);
  for (let i = 0; i < wanted; i++) {
    const at = Math.max(((i + 0.5) * size) / wanted - 0.5, 0);
    low[i] = Math.min(Math.floor(at), size - 1);
    high[i] = Math.min(low[i] + 1, size - 1);
    share[i] = at - low[i];
  }
  return { low, high, share };
}

// A map (h, w) at another size.
function resize(map, [h, w], [height, width]) {
  if (h === height && w === width) return map;
  const x = taps(w, width), y = taps(h, height);
  const wide = new Float32Array(h * width), { low, high, share: shares } = x;
  for (let row = 0, to = 0; row < h; row++)
    for (let i = 0, from = row * w; i < width; i++, to++) {
      const left = map[from + low[i]];
      wide[to] = left + (map[from + high[i]] - left) * shares[i];
    }
  const resized = new Float32Array(height * width);
  for (let row = 0, to = 0; row < height; row++) {
    const above = y.low[row] * width, below = y.high[row] * width, share = y.share[row];
    for (let i = 0; i < width; i++, to++)
      resized[to] = wide[above + i] + (wide[below + i] - wide[above + i]) * share;
  }
  return resized;
}

function crop(map, [h, w], [height, width]) {
  if (h === height && w === width) return map;
  const part = new Float32Array(height * width);
  for (let row = 0; row < height; row++)
    part.set(map.subarray(row * w, row * w + width), row * width);
  return part;
}

// The samples of a row that make one sample of the results, with their shares.
function spread(at, [size, padded], [image, output]) {
  const found = [];
  const parts = ({ low, high, share }, i) => [[low[i], 1 - share[i]], [high[i], share[i]]];
  for (const [middle, outer] of parts(taps(image, output), at))
    for (const [sample, inner] of parts(taps(size, padded), middle)) found.push([sample, outer * inner]);
  return found;
}
