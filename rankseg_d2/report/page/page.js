"use strict";
// Fills the page with the content of a run, for one data set at a time.

const content = JSON.parse(document.getElementById("content").textContent);
const one = (selector) => document.querySelector(selector);

function showRun() {
  one("#name").textContent = content.name;
  one("#facts").replaceChildren(...content.facts.map(([name, value]) =>
    make("span", {}, `${name} `, make("b", { textContent: value }))));
  one("#curves").hidden = !content.curves.length;
  for (const { title, series } of content.curves) {
    const figure = make("figure", {}, make("figcaption", { textContent: title }));
    one("#curves .charts").append(figure);
    drawCurves(figure, series, { xLabel: "iteration" });
  }
  const buttons = content.datasets.map((data, i) => make("button", { textContent: data.name, onclick: () => showData(i) }));
  one("#datasets").replaceChildren(...buttons);
  one("#datasets").hidden = buttons.length < 2;
  showData(0);
}

function showData(index) {
  const data = content.datasets[index];
  document.querySelectorAll("#datasets button").forEach((button, i) => button.setAttribute("aria-pressed", i === index));
  one("#headlines").replaceChildren(...data.headlines.map(({ name, value, unit, about }) =>
    make("div", { className: "tile", title: about },
      make("span", { textContent: name }), make("b", {}, number(value), make("i", { textContent: unit && ` ${unit}` })))));
  one("#split").hidden = !data.splits.length;
  one("#bars").replaceChildren(...data.splits.flatMap(splitBar));
  one("#ranking").hidden = !data.ranking;
  if (data.ranking) showRanking(data.ranking);
  one("#filter").value = "";
  one("#classes").hidden = !data.classes.rows.length;
  if (data.classes.rows.length) showClasses(data.classes, one("#filter"));
  one("#confusion").hidden = !data.confusion?.pairs.length;
  if (data.confusion?.pairs.length) showConfusion(data.confusion, one("#filter"));
  one("#images").hidden = !data.examples.length;
  if (data.examples.length) new Gallery(data.examples);
}

function splitBar(split) {
  const parts = [
    ["reached", split.value, "var(--right)"], ["lost to the ranking", split.ranking, "var(--ranking)"],
    ["lost to wrong classes", split.classes, "var(--wrong)"], ["lost to masks", split.masks, "var(--masks)"],
  ];
  const bars = parts.map(([name, value, color]) => {
    const part = make("div", { textContent: value >= 6 ? value.toFixed(1) : "", title: `${name}: ${value.toFixed(2)}` });
    part.style.cssText = `background: ${color}; width: ${value}%`;
    return part;
  });
  const legend = parts.map(([name, value, color]) => {
    const span = make("span", { textContent: `${name} ${value.toFixed(2)}` });
    span.style.setProperty("--color", color);
    return span;
  });
  return [
    make("div", { className: "bar" }, make("b", { textContent: split.metric }), make("div", { className: "parts" }, ...bars)),
    make("div", { className: "legend" }, ...legend),
  ];
}

function showRanking({ kept, labels, recall, precision, calibration }) {
  for (const figure of document.querySelectorAll("#ranking figure")) {
    figure.replaceChildren(figure.querySelector("figcaption"));
  }
  const curve = (values) => values.map((value, i) => [i + 1, value]);
  const mark = kept ? { at: kept, name: `kept: ${number(kept, 1)}` } : null;
  drawCurves(one("#by-kappa"), { "recall %": curve(recall), "precision %": curve(precision) }, { xLabel: "κ", y: [0, 100], mark });
  drawBars(one("#ranks"), labels, { xLabel: "rank", words: (rank, count) => `rank ${rank}: ${number(count)} categories` });
  one("#calibration").hidden = one("#calibration-words").hidden = !calibration;
  if (!calibration) return;
  const bins = calibration.bins.map((bin) => [bin.probability, bin.present]);
  drawCurves(one("#calibration"), { "share present": bins, perfect: [[0, 0], [1, 1]] }, { xLabel: "probability", x: [0, 1], y: [0, 1] });
  one("#calibration-words").textContent = `Expected calibration error ${calibration.ece.toFixed(3)}; ` +
    "`rankseg-d2 kappa --write` fits a calibration and chooses κ for a wanted recall.";
}

showRun();
