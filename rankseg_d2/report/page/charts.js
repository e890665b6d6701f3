"use strict";
// Charts as SVG: curves with the values at the pointer, and bars.

const SIZE = { width: 420, height: 230, left: 42, right: 8, top: 8, bottom: 34 };

function svg(name, attributes, parent, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent?.append(element);
  return element;
}

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  Object.assign(element, attributes);
  element.append(...children);
  return element;
}

/** About `count` round numbers from `low` to `high`. */
function ticks(low, high, count = 5) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i++) found.push(i * step);
  return found;
}

function number(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
  return String(+value.toFixed(Math.abs(value) < 0.1 && value ? 4 : digits));
}

/** Axes of a chart; gives its SVG element and the places of values. */
function frame(figure, { x, y, xLabel, yLabel = "" }) {
  const { width, height, left, right, top, bottom } = SIZE;
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img" }, figure);
  chart.setAttribute("aria-label", figure.querySelector("figcaption")?.textContent ?? "");
  const across = (value) => left + ((value - x[0]) / (x[1] - x[0] || 1)) * (width - left - right);
  const up = (value) => height - bottom - ((value - y[0]) / (y[1] - y[0] || 1)) * (height - top - bottom);
  for (const tick of ticks(...y)) {
    svg("line", { x1: left, x2: width - right, y1: up(tick), y2: up(tick), class: "grid" }, chart);
    svg("text", { x: left - 6, y: up(tick) + 4, "text-anchor": "end" }, chart, number(tick));
  }
  for (const tick of ticks(...x)) {
    svg("text", { x: across(tick), y: height - bottom + 15, "text-anchor": "middle" }, chart, number(tick));
  }
  svg("line", { x1: left, x2: width - right, y1: up(y[0]), y2: up(y[0]), class: "axis" }, chart);
  svg("text", { x: (left + width) / 2, y: height - 4, "text-anchor": "middle" }, chart, xLabel);
  if (yLabel) svg("text", { x: left, y: top - 1 }, chart, yLabel);
  return { chart, across, up };
}

/**
 * Curves, {name: [[x, y], ...]}, with a line of values below: those at the pointer, else the last.
 * `mark` is a place on the x axis with its name.
 */
function drawCurves(figure, series, { xLabel, x, y, mark }) {
  const names = Object.keys(series);
  const points = names.flatMap((name) => series[name]).filter((point) => point[1] !== null);
  if (!points.length) return;
  const bounds = (values) => values.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [Infinity, -Infinity]);
  x ??= bounds(points.map((point) => point[0]));
  y ??= [Math.min(0, bounds(points.map((point) => point[1]))[0]), bounds(points.map((point) => point[1]))[1] * 1.04];
  const { chart, across, up } = frame(figure, { x, y, xLabel });
  if (mark && mark.at >= x[0] && mark.at <= x[1]) {
    svg("line", { x1: across(mark.at), x2: across(mark.at), y1: up(y[0]), y2: up(y[1]), class: "mark" }, chart);
    svg("text", { x: across(mark.at) + 4, y: (up(y[0]) + up(y[1])) / 2 }, chart, mark.name);
  }
  names.forEach((name, i) => {
    const shown = series[name].filter((point) => point[1] !== null);
    const color = `var(--line-${i % 8})`;
    const path = shown.map((point) => `${across(point[0]).toFixed(1)},${up(point[1]).toFixed(1)}`).join(" ");
    svg("polyline", { points: path, class: "curve", style: `stroke: ${color}` }, chart);
    if (shown.length < 30) {
      for (const point of shown) svg("circle", { cx: across(point[0]), cy: up(point[1]), r: 2.5, style: `fill: ${color}` }, chart);
    }
  });
  const pointer = svg("line", { y1: up(y[0]), y2: up(y[1]), class: "pointer" }, chart);
  const values = make("div", { className: "values" });
  figure.append(values);
  const show = (at) => {
    const line = [];
    names.forEach((name, i) => {
      const shown = series[name].filter((point) => point[1] !== null);
      if (!shown.length) return;
      const near = shown.reduce((best, point) => (Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best));
      const span = make("span", {}, `${name} ${number(near[1])}`);
      span.style.setProperty("--color", `var(--line-${i % 8})`);
      line.push(span);
    });
    values.replaceChildren(make("span", { className: "x" }, `${xLabel} ${number(Math.round(at * 100) / 100)}`), ...line);
  };
  show(x[1]);
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width * SIZE.width - SIZE.left) / (SIZE.width - SIZE.left - SIZE.right);
    const xs = series[names[0]].map((point) => point[0]);
    const wanted = x[0] + Math.max(0, Math.min(1, share)) * (x[1] - x[0]);
    const at = xs.reduce((best, one) => (Math.abs(one - wanted) < Math.abs(best - wanted) ? one : best));
    pointer.setAttribute("x1", across(at));
    pointer.setAttribute("x2", across(at));
    pointer.style.visibility = "visible";
    show(at);
  });
  chart.addEventListener("pointerleave", () => {
    pointer.style.visibility = "hidden";
    show(x[1]);
  });
}

/** Bars of the values for 1, 2, …, with the one under the pointer in words. */
function drawBars(figure, values, { xLabel, words }) {
  const high = Math.max(...values, 1);
  const { chart, across, up } = frame(figure, { x: [0.5, values.length + 0.5], y: [0, high * 1.04], xLabel });
  const width = Math.max((across(1) - across(0)) * 0.8, 1);
  const line = make("div", { className: "values" });
  values.forEach((value, i) => {
    const bar = svg("rect", {
      x: across(i + 1) - width / 2, y: up(value), width, height: up(0) - up(value), style: "fill: var(--line-0)",
    }, chart);
    bar.addEventListener("pointerenter", () =>
      line.replaceChildren(make("span", { className: "x" }, words(i + 1, value))));
  });
  const rest = () => line.replaceChildren(make("span", { className: "x" }, words(1, values[0])));
  chart.addEventListener("pointerleave", rest);
  rest();
  figure.append(line);
}
