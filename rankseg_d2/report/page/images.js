"use strict";
// The worst and the best images: a gallery, and one of them large.

const VIEWS = ["image", "ground truth", "prediction", "errors"];

class Gallery {
  constructor(examples) {
    Object.assign(this, { examples, kind: "worst", view: 2, at: 0 });
    this.dialog = document.querySelector("#large");
    document.querySelector("#views").replaceChildren(...VIEWS.map((name, i) =>
      make("button", { textContent: name[0].toUpperCase() + name.slice(1), onclick: () => this.show(this.kind, i) })));
    for (const button of document.querySelectorAll("#kinds button")) {
      button.disabled = !examples.some((one) => one.kind === button.dataset.kind);
      button.onclick = () => this.show(button.dataset.kind, this.view);
    }
    document.querySelector("#close").onclick = () => this.dialog.close();
    this.dialog.onclick = (event) => { if (event.target === this.dialog) this.dialog.close(); };
    this.dialog.onkeydown = (event) => this.press(event);
    this.show("worst", 2);
  }

  get shown() {
    return this.examples.filter((one) => one.kind === this.kind);
  }

  show(kind, view) {
    Object.assign(this, { kind, view });
    for (const button of document.querySelectorAll("#kinds button")) {
      button.setAttribute("aria-pressed", button.dataset.kind === kind);
    }
    document.querySelectorAll("#views button").forEach((button, i) => button.setAttribute("aria-pressed", i === view));
    const cards = this.shown.map((one, i) => make("button", { onclick: () => this.open(i) },
      make("img", { src: one.views[view], alt: `${one.name}, ${VIEWS[view]}` }),
      make("span", {}, make("i", { textContent: one.name, title: one.name }), make("b", { textContent: number(one.score, 1) }))));
    document.querySelector("#gallery").replaceChildren(...cards);
  }

  open(at) {
    this.at = at;
    const one = this.shown[at];
    const image = this.dialog.querySelector("img");
    image.src = one.views[this.view];
    image.alt = `${one.name}, ${VIEWS[this.view]}`;
    this.dialog.querySelector("figcaption").textContent =
      `${one.name} · ${VIEWS[this.view]} · IoU ${number(one.score, 1)} · ${at + 1} of ${this.shown.length}`;
    this.dialog.querySelector("aside").replaceChildren(...this.words(one));
    if (!this.dialog.open) this.dialog.showModal();
  }

  words(one) {
    const list = (title, names, className) => names.length
      ? [make("h3", { textContent: title }), ...names.map((name) => make("p", { className, textContent: name }))] : [];
    const ranked = one.ranked.map((row) => make("p", { className: row.present ? "present" : "absent" },
      make("span", { textContent: row.name }), make("span", { textContent: row.probability.toFixed(2) })));
    return [
      ...list("Present, but not kept by the ranking", one.unranked, "lost"),
      ...list("Present, but not predicted", one.missed, "lost"),
      ...list("Predicted, but absent", one.false, ""),
      ...(ranked.length ? [make("h3", { textContent: "Ranked first (green: present)" }), ...ranked] : []),
    ];
  }

  press(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const view = "1234".indexOf(event.key);
    if (step) this.open((this.at + step + this.shown.length) % this.shown.length);
    else if (view >= 0) {
      this.show(this.kind, view);
      this.open(this.at);
    }
  }
}
