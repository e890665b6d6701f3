// Labels as a picture: colours of the classes, outlines, and names inside the regions.

const LINES = [[3.5, "rgb(0 0 0 / .35)"], [1.6, "rgb(255 255 255 / .95)"]]; // width, colour
const SHARP = 1100; // pixels across the canvas of the lines at least

class Drawing {
  // The elements have the ids that page.html gives them.
  constructor({ fill, lines, words }, page) {
    Object.assign(this, { fill, lines, words, page });
    [this.height, this.width] = page.sizes.output;
    this.zoom = Math.ceil(SHARP / this.width);
    [fill.width, fill.height] = [this.width, this.height];
    [lines.width, lines.height] = [this.zoom * this.width, this.zoom * this.height];
  }

  // Labels in colours, all or those of one class, and only where `shown` is 1, if it is given.
  draw(labels, { only = null, shown = null, named = true }) {
    const { page: { classes }, width, height } = this;
    const picture = new ImageData(width, height), pixels = new Uint32Array(picture.data.buffer);
    const colors = classes.map(({ color: [r, g, b] }, number) => {
      const alpha = only === null || only === number ? 255 : 50;
      return ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
    });
    for (let i = 0; i < labels.length; i++)
      if (labels[i] < colors.length && (!shown || shown[i])) pixels[i] = colors[labels[i]];
    this.fill.getContext("2d").putImageData(picture, 0, 0);
    this.drawLines(pixels);
    this.drawWords(labels, { only, shown, named });
  }

  // White lines with a dark rim between regions, sharp however small the picture is.
  drawLines(pixels) {
    const { width, height, zoom } = this, path = new Path2D();
    const along = (count, length, differ, line) => {
      for (let n = 0; n < count; n++)
        for (let at = 0, start = -1; at <= length; at++) {
          const edge = at < length && differ(n, at);
          if (edge && start < 0) start = at;
          else if (!edge && start >= 0) {
            line(n, start, at);
            start = -1;
          }
        }
    };
    along(height - 1, width, (y, x) => pixels[y * width + x] !== pixels[(y + 1) * width + x],
      (y, from, to) => (path.moveTo(zoom * from, zoom * (y + 1)), path.lineTo(zoom * to, zoom * (y + 1))));
    along(width - 1, height, (x, y) => pixels[y * width + x] !== pixels[y * width + x + 1],
      (x, from, to) => (path.moveTo(zoom * (x + 1), zoom * from), path.lineTo(zoom * (x + 1), zoom * to)));
    const context = this.lines.getContext("2d");
    context.clearRect(0, 0, zoom * width, zoom * height);
    context.lineCap = "round";
    for (const [lineWidth, strokeStyle] of LINES)
      Object.assign(context, { lineWidth, strokeStyle }).stroke(path);
  }

  // Each name in the middle of the largest square inside its class, if it has room there.
  drawWords(labels, { only, shown, named }) {
    const { width, height, page: { classes } } = this;
    this.words.replaceChildren();
    if (!named) return;
    const across = this.words.clientWidth, zoom = across / width;
    for (const [label, { side, x, y }] of largestSquares(labels, width, height, shown)) {
      if (label >= classes.length || (only !== null && only !== label)) continue;
      const { name } = classes[label], room = side * zoom;
      if (room < 24 || room * 1.5 < 7.2 * name.length) continue;
      const word = document.createElement("span");
      word.textContent = name;
      word.style.top = `${(100 * (y + 0.5 - side / 2)) / height}%`;
      this.words.append(word);
      const half = word.offsetWidth / 2 + 4, middle = zoom * (x + 0.5 - side / 2);
      word.style.left = `${Math.min(Math.max(middle, half), across - half)}px`;
    }
  }
}

// Label -> side and lower right corner of the largest square that has only it.
function largestSquares(labels, width, height, shown) {
  const found = new Map();
  let above = new Uint16Array(width), sides = new Uint16Array(width);
  for (let y = 0, i = 0; y < height; y++, [above, sides] = [sides, above])
    for (let x = 0; x < width; x++, i++) {
      const label = labels[i];
      if (shown && !shown[i]) {
        sides[x] = 0;
        continue;
      }
      const same = x && y && labels[i - 1] === label && labels[i - width] === label;
      const inside = same && labels[i - width - 1] === label;
      const side = (inside ? Math.min(sides[x - 1], above[x], above[x - 1]) : 0) + 1;
      sides[x] = side;
      if (side > (found.get(label)?.side ?? 0)) found.set(label, { side, x, y });
    }
  return found;
}
