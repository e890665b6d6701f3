// What a person can do; `rankseg` is for scripts and tests.

const page = JSON.parse(document.getElementById("content").textContent);
const $ = Object.fromEntries([...document.querySelectorAll("[id]")].map((one) => [one.id, one]));
const model = new Segmentation(page);
const drawing = new Drawing($, page);
const stored = new Set(page.categories);
const percent = (share) => (share > 0 && share < 0.01 ? "<1 %" : `${Math.round(100 * share)} %`);
const initial = () => ({ ...page.start, denied: new Set(page.start.denied) });

let wishes = initial(), before, after, view = "after", pointed = null, rows = [];

// Scores from 0 to 1 with more room near both ends: the slider moves the logit.
const toThreshold = (place) => (place ? 1 / (1 + Math.exp(-(place - 500) / 62)) : 0);
const toPlace = (value) =>
  value ? Math.min(Math.max(Math.round(500 + 62 * Math.log(value / (1 - value))), 1), 999) : 0;
const written = (value) => (value > 0.01 && value < 0.99 ? value.toFixed(2) : value.toPrecision(2));

function measured(result) {
  result.areas = new Uint32Array(page.classes.length);
  for (const label of result.labels) result.areas[label]++;
  return result;
}

function build() {
  const [height, width] = page.sizes.output;
  $.photo.src = page.picture;
  $.photo.alt = page.name;
  $.frame.style.setProperty("--aspect", width / height);
  $.name.textContent = page.name;
  $["ranking-controls"].hidden = !model.ranks;
  $.topk.max = page.trained.topk ?? 1;
  $["list-title"].textContent = model.ranks ? "Ranked categories" : "Categories";
  $.rows.before(element("div", "columns", ["", "", "", "", model.ranks ? "likely" : "best", "area"]));
  const order = page.classes.map((_, number) => number);
  order.sort((a, b) => page.classes[b].score - page.classes[a].score || a - b);
  rows = order.map((number, place) => row(number, place));
  $.rows.append(...rows.map(({ item }) => item));
  $.note.textContent = note();
  const means = model.ranks ? "Move κ or the threshold, or tick categories off" : "Tick categories off and on";
  $.hint.textContent = `${means}: the picture is segmented again at once. Point at it to see what a pixel is.`;
}

function element(kind, name, texts) {
  const made = document.createElement(kind);
  made.className = name;
  for (const text of texts) made.append(Object.assign(document.createElement("span"), { textContent: text }));
  return made;
}

function row(number, place) {
  const { name, color, probability, score } = page.classes[number];
  const item = document.createElement("li"), label = document.createElement("label");
  const box = Object.assign(document.createElement("input"), { type: "checkbox" });
  box.disabled = !stored.has(number);
  box.addEventListener("change", () => allow(number, box.checked));
  const parts = element("div", "", [place + 1, "", name, percent(probability), ""]);
  const [rank, swatch, title, chance, share] = parts.children;
  [rank.className, swatch.className, title.className] = ["place", "swatch", "name"];
  [chance.className, share.className] = ["chance", "share"];
  item.style.setProperty("--color", `rgb(${color.join(" ")})`);
  item.style.setProperty("--chance", Math.min(probability, 1));
  const own = 1 / (1 + Math.exp(-score));
  label.title = box.disabled ? `${name}: not in this page` : name;
  if (model.ranks) label.title += ` (score ${own.toPrecision(3)}, on which the threshold acts)`;
  label.append(box, ...parts.children);
  item.append(label);
  item.addEventListener("pointerenter", () => point(number));
  item.addEventListener("pointerleave", () => point(null));
  return { number, name, item, box, share };
}

function note() {
  const notes = [], missing = page.classes.length - page.categories.length;
  if (missing) notes.push(`${missing} categories are not in this page, to keep it small.`);
  if (page.shrink > 1)
    notes.push(`The masks are stored at 1/${page.shrink} of their size; edges can differ a little.`);
  if (page.original.join() !== page.sizes.output.join())
    notes.push(`The picture is shown smaller than its ${page.original[1]} × ${page.original[0]} pixels.`);
  return notes.join(" ");
}

function allow(number, isAllowed) {
  if (isAllowed) wishes.denied.delete(number);
  else wishes.denied.add(number);
  if (page.categories.every((category) => wishes.denied.has(category))) wishes.denied.delete(number);
  change();
}

// Segment again, once per frame of the screen however fast a slider moves; exactly when it rests.
let planned = 0;
function change() {
  if (view === "before") view = "after";
  write();
  planned ||= requestAnimationFrame(() => {
    planned = 0;
    after = measured(model.begin(wishes));
    show();
    refine(after);
  });
}

async function refine(result) {
  for (const _ of model.refine(result)) {
    await new Promise((go) => setTimeout(go));
    if (result !== after) return;
  }
  measured(result);
  show();
}

function point(number) {
  if (pointed === number) return;
  pointed = number;
  draw();
}

// The controls say what is wished.
function write() {
  const { topk, threshold } = wishes;
  $.topk.value = topk;
  $.threshold.value = toPlace(threshold);
  $["topk-value"].innerHTML = `${topk} <i>of ${page.trained.topk}</i>`;
  $["threshold-value"].innerHTML = threshold ? written(threshold) : "<i>off</i>";
  $.call.textContent = call();
  $.reset.disabled = isInitial();
}

function isInitial() {
  const { topk, threshold, denied } = initial();
  const same = denied.size === wishes.denied.size && [...denied].every((one) => wishes.denied.has(one));
  return same && topk === wishes.topk && threshold === wishes.threshold;
}

function show() {
  const changed = changes();
  const kept = new Set(after.kept), total = model.count;
  for (const { number, item, box, share } of rows) {
    const denied = wishes.denied.has(number);
    box.checked = stored.has(number) && !denied;
    share.textContent = after.areas[number] ? percent(after.areas[number] / total) : "";
    item.className = [
      "row",
      after.areas[number] && "present",
      denied && "denied",
      !kept.has(number) && "out",
      !stored.has(number) && "unstored",
    ].filter(Boolean).join(" ");
  }
  showCut(kept);
  const count = after.areas.reduce((sum, area) => sum + (area > 0), 0);
  const share = changed.reduce((sum, one) => sum + one, 0) / total;
  const words = [`<b>${count}</b> of ${kept.size} kept categories are in the picture`];
  if (model.ranks) words.unshift(`<b>${kept.size}</b> of ${page.classes.length} categories are kept`);
  if (model.ranks) words[1] = `<b>${count}</b> of them ${count === 1 ? "is" : "are"} in the picture`;
  words.push(share ? `your settings change <b>${percent(share)}</b> of it` : "as the model has predicted it");
  $.summary.innerHTML = words.join(" · ");
  draw(changed);
}

// A line below the last category that is kept.
function showCut(kept) {
  $.rows.querySelector(".cut")?.remove();
  if (!model.ranks) return;
  const last = rows.findLastIndex(({ number }) => kept.has(number));
  const { threshold, topk } = wishes;
  const reason = threshold && kept.size < topk ? `threshold ${written(threshold)}` : `κ = ${topk}`;
  if (last + 1 < rows.length)
    rows[last].item.after(element("li", "cut", [`${reason}: those below are not kept`]));
}

function changes() {
  return Uint8Array.from(after.labels, (label, i) => +(label !== before.labels[i]));
}

function draw(changed = view === "changes" ? changes() : null) {
  const { labels } = view === "before" ? before : after;
  const shown = view === "changes" ? changed : null;
  drawing.draw(labels, { only: pointed, shown, named: $.names.checked });
  for (const button of document.querySelectorAll("[data-view]"))
    button.setAttribute("aria-pressed", button.dataset.view === view);
}

// The Python call that gives the same labels.
function call() {
  const quoted = (names) => `[${names.map((name) => JSON.stringify(name)).join(", ")}]`;
  const names = (wanted) => page.classes.filter((_, i) => wanted(i)).map(({ name }) => name);
  const words = [JSON.stringify(page.name)], { topk, threshold, denied } = wishes;
  if (topk !== page.trained.topk) words.push(`topk=${topk}`);
  if (threshold !== page.trained.threshold)
    words.push(`threshold=${threshold ? +threshold.toPrecision(6) : 1e-6}`);
  if (2 * denied.size > page.classes.length) words.push(`allow=${quoted(names((i) => !denied.has(i)))}`);
  else if (denied.size) words.push(`deny=${quoted(names((i) => denied.has(i)))}`);
  if (Object.keys(page.prior).length) words.push(`prior=${JSON.stringify(page.prior)}`);
  return `result = predictor(${words.join(", ")})`;
}

function hover(event) {
  const box = $.frame.getBoundingClientRect(), [height, width] = page.sizes.output;
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  const at = [Math.floor((x / box.width) * width), Math.floor((y / box.height) * height)];
  const inside = at[0] >= 0 && at[1] >= 0 && at[0] < width && at[1] < height;
  $.tip.hidden = !inside || !after;
  if ($.tip.hidden) return;
  const some = view === "before" ? before : after, i = at[1] * width + at[0];
  $.tip.replaceChildren(...tipLines(some, i));
  const right = x > box.width / 2, low = y > box.height / 2;
  $.tip.style.left = right ? "" : `${x + 16}px`;
  $.tip.style.right = right ? `${box.width - x + 16}px` : "";
  $.tip.style.top = low ? "" : `${y + 16}px`;
  $.tip.style.bottom = low ? `${box.height - y + 16}px` : "";
  for (const { number, item } of rows) item.classList.toggle("pointed", number === some.labels[i]);
}

function tipLines(some, i) {
  const head = element("div", "head", [view === "before" ? "before" : "this pixel", "score"]);
  const scores = model.scoresAt(some, i), places = scores.map((_, place) => place);
  places.sort((a, b) => scores[b] - scores[a]);
  const lines = places.slice(0, 3).map((place, n) =>
    tipLine(n ? "other" : "best", some.kept[place], scores[place]));
  lines.unshift(head);
  const was = before.labels[i], now = after.labels[i];
  const other = view === "before" ? now : was;
  if (was !== now)
    lines.push(Object.assign(document.createElement("p"), {
      textContent: `${view === "before" ? "after" : "before"}: ${page.classes[other].name}`,
    }));
  return lines;
}

function tipLine(kind, number, score) {
  const line = element("div", `line ${kind}`, ["", page.classes[number].name, score.toFixed(3)]);
  line.firstChild.className = "swatch";
  line.firstChild.style.setProperty("--color", `rgb(${page.classes[number].color.join(" ")})`);
  return line;
}

function leave() {
  $.tip.hidden = true;
  for (const { item } of rows) item.classList.remove("pointed");
}

function look(wanted) {
  view = wanted;
  draw();
}

function listen() {
  $.topk.addEventListener("input", () => change((wishes.topk = +$.topk.value)));
  $.threshold.addEventListener("input", () => change((wishes.threshold = toThreshold(+$.threshold.value))));
  $.opacity.addEventListener("input", () => ($.fill.style.opacity = $.opacity.value / 100));
  $.names.addEventListener("change", () => draw());
  $.reset.addEventListener("click", () => change((wishes = initial())));
  $.search.addEventListener("input", () => {
    const wanted = $.search.value.trim().toLowerCase();
    for (const { name, item } of rows) item.hidden = !name.toLowerCase().includes(wanted);
  });
  $.copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText($.call.textContent);
    $.copy.textContent = "Copied";
    setTimeout(() => ($.copy.textContent = "Copy"), 1200);
  });
  for (const button of document.querySelectorAll("[data-view]"))
    button.addEventListener("click", () => look(button.dataset.view));
  for (const kind of ["pointermove", "pointerdown"]) $.frame.addEventListener(kind, hover);
  $.frame.addEventListener("pointerleave", leave);
  new ResizeObserver(() => after && draw()).observe($.frame);
}

async function start() {
  build();
  write();
  if (!("DecompressionStream" in window)) {
    $.wait.textContent = "This page needs a browser from 2023 or later.";
    return;
  }
  await model.prepare(async (share) => {
    $.progress.value = share;
    await new Promise((go) => setTimeout(go));
  });
  $.wait.remove();
  $.fill.style.opacity = $.opacity.value / 100;
  before = after = measured(model.segment(wishes));
  listen();
  show();
}

// labels({topk, threshold, denied}): the class number of each pixel, row by row.
window.rankseg = {
  ready: start(),
  page,
  labels(some = {}) {
    const denied = new Set(some.denied ?? page.start.denied);
    return [...model.segment({ ...initial(), ...some, denied }).labels];
  },
};
