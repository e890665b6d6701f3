// The model's arithmetic after the network: rank, keep, classify, put on pixels. The names are those
// of the Python package (ranking/ranker.py, ranking/temperature.py, modeling/results).

// A mask whose logit is so much below 0, or below that of the best mask, is left out at that pixel:
// its probability is less than 1/4000 of the best one.
const LEAST = 9;
const STEP = 4; // pixels between those that are computed first

// Logits as probabilities, in place.
function sigmoid(map) {
  for (let i = 0; i < map.length; i++) map[i] = 1 / (1 + Math.exp(-map[i]));
  return map;
}

function softmax(values) {
  const most = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

// The rank-adaptive temperature of the first ranks and, for regions, of no-object: values in place.
function rankNorm(values, norm) {
  if (!norm) return values;
  const count = values.length, total = norm.weight.length;
  let mean = 0, variance = 0;
  for (let i = 0; i < count; i++) mean += values[i] / count;
  for (let i = 0; i < count; i++) variance += (values[i] - mean) ** 2 / count;
  const scale = 1 / Math.sqrt(variance + norm.eps);
  for (let i = 0; i < count; i++) {
    const column = norm.no_object && i === count - 1 ? total - 1 : i;
    values[i] = (values[i] - mean) * scale * norm.weight[column] + norm.bias[column];
  }
  return values;
}

class Segmentation {
  // `page` is what page.py has written.
  constructor(page) {
    this.page = page;
    this.ranks = page.trained.topk !== null;
    this.size = page.sizes.output;
    this.count = this.size[0] * this.size[1];
  }

  async prepare(progress = () => {}) {
    const { page } = this;
    this.codes = await unpack(page.maps.codes);
    if (!page.regions) return;
    this.logits = await unpack(page.logits);
    await this.prepareMasks(progress);
  }

  // Map n as it came from the network (or smaller, if the page had to be).
  map(n) {
    const { codes: { type, shape: [, h, w] }, low, step, bend } = this.page.maps;
    const value = (code) => {
      const straight = low[n] + step[n] * code;
      return bend === null ? straight : bend * Math.sinh(straight);
    };
    const values = Float32Array.from({ length: type === "uint8" ? 256 : 65536 }, (_, code) => value(code));
    const map = new Float32Array(h * w);
    for (let i = 0, from = n * h * w; i < map.length; i++, from++) map[i] = values[this.codes[from]];
    return map;
  }

  // A map at the size of the network's input.
  padded(map) {
    return resize(map, this.page.maps.codes.shape.slice(1), this.page.sizes.padded);
  }

  // The image's part of a map of the network's input, at the size of the results.
  output(map) {
    const { padded, image, output } = this.page.sizes;
    return resize(crop(map, padded, image), image, output);
  }

  // The masks at each pixel, the best first, without those that are next to nothing there: of pixel i
  // the entries from starts[i] to starts[i + 1].
  async prepareMasks(progress) {
    const queries = this.page.maps.codes.shape[0], { count } = this;
    const first = this.page.resizeFirst, lists = [];
    const least = new Float32Array(count).fill(-Infinity), room = new Uint32Array(count);
    for (let q = 0; q < queries; q++) {
      if (q % 4 === 0) await progress(q / queries);
      const map = this.output(first ? this.padded(this.map(q)) : sigmoid(this.padded(this.map(q))));
      let used = 0;
      for (let i = 0; i < count; i++) {
        const logit = first ? map[i] : Math.log(map[i] / (1 - map[i]));
        if (logit < least[i]) continue;
        least[i] = Math.max(least[i], Math.min(logit, 0) - LEAST);
        room[used++] = i;
      }
      const pixels = room.slice(0, used), values = new Float32Array(used);
      for (let n = 0; n < used; n++) values[n] = map[pixels[n]];
      lists.push({ pixels, values: first ? sigmoid(values) : values });
    }
    this.masks = sorted(lists, count);
  }

  // The columns that are kept, best first, as positions in `page.categories`.
  rank({ topk, threshold, denied }) {
    const { categories, classes } = this.page;
    let columns = categories.map((_, column) => column);
    columns = columns.filter((column) => !denied.has(categories[column]));
    if (!this.ranks) return columns.sort((a, b) => categories[a] - categories[b]);
    const value = (column) => {
      const { score } = classes[categories[column]];
      return threshold ? Math.fround(1 / (1 + Math.exp(-score))) : score;
    };
    columns.sort((a, b) => value(b) - value(a) || categories[a] - categories[b]);
    columns = columns.slice(0, topk);
    return columns.filter((column, place) => !threshold || !place || value(column) > threshold);
  }

  // The class number of each pixel, and the kept ones, best first.
  segment(wishes) {
    const result = this.begin(wishes);
    for (const _ of this.refine(result));
    return result;
  }

  // The same at once: blocks whose corners agree are taken to be of one category, and maps are not
  // interpolated. `refine` makes it exact.
  begin(wishes) {
    const columns = this.rank(wishes);
    const kept = Uint16Array.from(columns, (column) => this.page.categories[column]);
    if (!this.page.regions) {
      const maps = this.classify(columns);
      return { kept, maps, labels: this.nearestOfMaps(maps).map((place) => kept[place]) };
    }
    const result = { kept, ...this.weigh(columns) };
    const known = new Uint8Array(this.count), labels = new Uint16Array(this.count);
    Object.assign(result, { known, labels, sums: new Float64Array(kept.length) });
    const [down, across] = this.size.map(grid), pair = (steps, i) => [steps[Math.max(i - 1, 0)], steps[i]];
    for (let row = 0; row < down.length; row++)
      for (let column = 0; column < across.length; column++)
        this.fillBlock(result, pair(down, row), pair(across, column));
    return result;
  }

  // Pixels between two rows and two columns of the grid, these included.
  fillBlock(result, rows, columns) {
    const width = this.size[1], { labels, known } = result;
    const at = (row, column) => this.labelAt(result, row * width + column);
    const corners = new Set(rows.flatMap((row) => columns.map((column) => at(row, column))));
    const [only] = corners;
    for (let row = rows[0]; row <= rows.at(-1); row++)
      for (let i = row * width + columns[0]; i <= row * width + columns.at(-1); i++)
        if (corners.size > 1) this.labelAt(result, i);
        else if (!known[i]) labels[i] = only;
  }

  // Compute what `begin` has taken for granted; yields from time to time.
  *refine(result) {
    if (result.maps) return yield* this.refineMaps(result);
    for (let i = 0, done = 0; i < this.count; i++) {
      if (result.known[i]) continue;
      this.labelAt(result, i);
      if (++done % 10000 === 0) yield;
    }
  }

  // Add the gate of each kept column to its logit: log probability of its category.
  gate(values, columns) {
    const { gate, categories, classes } = this.page;
    if (gate) columns.forEach((column, place) => {
      values[place] -= gate * Math.log1p(Math.exp(-classes[categories[column]].score));
    });
    return values;
  }

  // Class probabilities of the regions among the kept columns: region q's from q * columns.length on.
  weigh(columns) {
    const width = this.page.categories.length + 1, queries = this.page.maps.codes.shape[0];
    const weights = new Float32Array(queries * columns.length);
    for (let q = 0; q < queries; q++) {
      const logits = columns.map((column) => this.logits[q * width + column]);
      const normed = rankNorm([...logits, this.logits[(q + 1) * width - 1]], this.page.norm);
      const all = softmax(this.gate(normed, columns));
      weights.set(all.slice(0, -1), q * columns.length);
    }
    const most = Float32Array.from({ length: queries }, (_, q) =>
      Math.max(...weights.subarray(q * columns.length, (q + 1) * columns.length)));
    return { weights, most };
  }

  // The best category of a pixel. Its masks are added up, the best first, until those that are left
  // cannot change which category is the best.
  labelAt({ kept, labels, known, weights, most, sums }, i) {
    if (known[i]) return labels[i];
    const { starts, queries, values } = this.masks, width = sums.length;
    let left = 0, best = 0;
    for (let n = starts[i]; n < starts[i + 1]; n++) left += values[n] * most[queries[n]];
    sums.fill(0);
    for (let n = starts[i]; n < starts[i + 1]; n++) {
      const mask = values[n], from = queries[n] * width;
      let first = -1, second = -1;
      for (let place = 0; place < width; place++) {
        const sum = (sums[place] += mask * weights[from + place]);
        if (sum > first) {
          second = first;
          first = sum;
          best = place;
        } else if (sum > second) second = sum;
      }
      left -= mask * most[queries[n]];
      if (first - second > left + 1e-6) break;
    }
    known[i] = 1;
    return (labels[i] = kept[best]);
  }

  // Maps of the logits of the kept columns, at the network's size.
  classify(columns) {
    const maps = columns.map((column) => this.map(column)), values = new Array(columns.length);
    if (!this.page.norm && !this.page.gate) return maps;
    for (let i = 0; i < maps[0].length; i++) {
      for (let place = 0; place < values.length; place++) values[place] = maps[place][i];
      this.gate(rankNorm(values, this.page.norm), columns);
      for (let place = 0; place < values.length; place++) maps[place][i] = values[place];
    }
    return maps;
  }

  // The best place at the nearest sample of the maps.
  nearestOfMaps(maps) {
    const [h, w] = this.page.maps.codes.shape.slice(1), { padded, image, output } = this.page.sizes;
    const best = new Uint16Array(h * w), places = new Uint16Array(this.count);
    for (let i = 0; i < best.length; i++)
      for (let place = 1; place < maps.length; place++)
        if (maps[place][i] > maps[best[i]][i]) best[i] = place;
    const nearest = (i, axis, size) =>
      Math.floor((((i + 0.5) * image[axis]) / output[axis]) * (size / padded[axis]));
    const columns = Array.from({ length: output[1] }, (_, x) => nearest(x, 1, w));
    for (let y = 0, i = 0; y < output[0]; y++) {
      const row = nearest(y, 0, h) * w;
      for (let x = 0; x < output[1]; x++, i++) places[i] = best[row + columns[x]];
    }
    return places;
  }

  *refineMaps({ kept, maps, labels }) {
    const places = new Uint16Array(this.count), best = new Float32Array(this.count).fill(-Infinity);
    for (let place = 0; place < maps.length; place++) {
      const large = this.output(this.padded(maps[place]));
      for (let i = 0; i < this.count; i++)
        if (large[i] > best[i]) {
          best[i] = large[i];
          places[i] = place;
        }
      yield;
    }
    for (let i = 0; i < this.count; i++) labels[i] = kept[places[i]];
  }

  // The scores of the kept categories at a pixel.
  scoresAt({ kept, weights, maps }, pixel) {
    if (maps) return maps.map((map) => this.valueAt(map, pixel));
    const scores = new Array(kept.length).fill(0), { starts, queries, values } = this.masks;
    for (let n = starts[pixel]; n < starts[pixel + 1]; n++)
      for (let place = 0; place < kept.length; place++)
        scores[place] += values[n] * weights[queries[n] * kept.length + place];
    return scores;
  }

  // The value that `output(padded(map))` has at a pixel.
  valueAt(map, pixel) {
    const { padded, image, output } = this.page.sizes, shape = this.page.maps.codes.shape.slice(1);
    const [y, x] = [Math.floor(pixel / output[1]), pixel % output[1]];
    const rows = spread(y, [shape[0], padded[0]], [image[0], output[0]]);
    const columns = spread(x, [shape[1], padded[1]], [image[1], output[1]]);
    let sum = 0;
    for (const [row, a] of rows)
      for (const [column, b] of columns) sum += a * b * map[row * shape[1] + column];
    return sum;
  }
}

// Rows or columns at which `begin` computes, the last one included.
function grid(size) {
  const steps = Array.from({ length: Math.ceil(size / STEP) }, (_, i) => i * STEP);
  return steps.at(-1) === size - 1 ? steps : [...steps, size - 1];
}

// Lists of pixels and values, one for each query, as entries of each pixel, the largest value first.
function sorted(lists, count) {
  const starts = new Uint32Array(count + 1);
  for (const { pixels } of lists) for (let n = 0; n < pixels.length; n++) starts[pixels[n] + 1]++;
  for (let i = 0; i < count; i++) starts[i + 1] += starts[i];
  const queries = new Uint16Array(starts[count]), values = new Float32Array(starts[count]);
  const ends = starts.slice(0, count);
  lists.forEach(({ pixels, values: own }, q) => {
    for (let n = 0; n < pixels.length; n++) {
      const pixel = pixels[n], value = own[n];
      let to = ends[pixel]++;
      for (; to > starts[pixel] && values[to - 1] < value; to--) {
        values[to] = values[to - 1];
        queries[to] = queries[to - 1];
      }
      values[to] = value;
      queries[to] = q;
    }
  });
  return { starts, queries, values };
}
