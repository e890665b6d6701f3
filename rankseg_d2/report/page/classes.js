"use strict";
// The table of the classes, and that of the pairs that are confused.

const MOST_ROWS = 400; // of a table; more are slow, and nobody reads them
const PART_COLORS = { ranking: "var(--ranking)", classes: "var(--wrong)", masks: "var(--masks)" };
const TASK_NAMES = {
  sem_seg: "Semantic", panoptic_seg: "Panoptic", segm: "Instances", bbox: "Boxes", multilabel: "Ranking",
};

class SortableTable {
  /** `columns`: {name, digits, color} each; `rows`: values in their order, null for none. */
  constructor(table, columns, rows) {
    Object.assign(this, { columns, rows, filter: () => true, column: null, falling: true });
    this.body = table.tBodies[0];
    this.heads = columns.map((column, i) => {
      const button = make("button", { textContent: column.name, title: "Sort" });
      button.addEventListener("click", () => this.sort(i));
      return make("th", { className: column.isText ? "text" : "", scope: "col" }, button);
    });
    table.tHead.replaceChildren(make("tr", {}, ...this.heads));
    this.onshow = () => {};
    this.show();
  }

  /** Sort by a column: names rise first, numbers fall first; once more turns it round. */
  sort(column) {
    const first = !this.columns[column].isText;
    this.falling = this.column === column ? !this.falling : first;
    this.column = column;
    this.show();
  }

  show() {
    const kept = this.rows.filter(this.filter);
    if (this.column !== null) {
      const [at, sign] = [this.column, this.falling ? -1 : 1];
      kept.sort((one, other) => {
        const [a, b] = [one[at], other[at]];
        if (a === null || b === null) return (a === null) - (b === null); // empty cells stay below
        return sign * (typeof a === "string" ? a.localeCompare(b) : a - b);
      });
    }
    this.heads.forEach((head, i) => {
      const order = i !== this.column ? "none" : this.falling ? "descending" : "ascending";
      head.setAttribute("aria-sort", order);
    });
    this.body.replaceChildren(...kept.slice(0, MOST_ROWS).map((row) => this.row(row)));
    this.shown = kept.length;
    this.onshow(kept.length);
  }

  row(values) {
    const cells = values.map((value, i) => {
      const column = this.columns[i];
      const cell = make("td", { textContent: column.isText ? value ?? "–" : number(value) });
      if (column.isText) cell.className = "text";
      if (column.color && value !== null) {
        cell.classList.add("share");
        cell.style.setProperty("--share", Math.max(0, Math.min(1, value / 100)));
        cell.style.setProperty("--color", column.color);
      }
      return cell;
    });
    const row = make("tr", {}, ...cells);
    row.values = values;
    return row;
  }
}

/** The table of the classes for one task, or for all. */
function showClasses({ columns, rows }, filter) {
  const table = document.querySelector("#classes table");
  const tasks = [...new Set(columns.map((column) => column.task).filter(Boolean))];
  let sortable;
  const choose = (task) => {
    const chosen = columns.map((column, i) => i).filter((i) => !columns[i].task || columns[i].task === task);
    const heads = chosen.map((i) => {
      const { name } = columns[i];
      const step = name.match(/ lost to (\w+)$/)?.[1];
      const isMain = /^(IoU|PQ|AP)$/.test(name);
      return { name, isText: !columns[i].task, color: step ? PART_COLORS[step] : isMain ? "var(--right)" : null };
    });
    sortable = new SortableTable(table, heads, rows.map((row) => chosen.map((i) => row[i])));
    sortable.onshow = (count) => {
      const more = count > MOST_ROWS ? `, the first ${MOST_ROWS} are shown` : "";
      document.querySelector("#class-count").textContent = `${count} of ${rows.length} classes${more}`;
    };
    for (const button of document.querySelectorAll("#tasks button")) {
      button.setAttribute("aria-pressed", button.dataset.task === task);
    }
    search();
  };
  const search = () => {
    const words = filter.value.toLowerCase().split("|").map((word) => word.trim()).filter(Boolean);
    sortable.filter = (row) => !words.length || words.some((word) => row[0].toLowerCase().includes(word));
    sortable.show();
  };
  document.querySelector("#tasks").replaceChildren(...tasks.map((task) => {
    const button = make("button", { textContent: TASK_NAMES[task] ?? task, onclick: () => choose(task) });
    button.dataset.task = task;
    return button;
  }));
  document.querySelector("#tasks").hidden = tasks.length < 2;
  filter.oninput = search;
  choose(tasks[0]);
}

function showConfusion({ pairs }, filter) {
  const columns = [
    { name: "ground truth", isText: true }, { name: "predicted", isText: true },
    { name: "% of its pixels", color: "var(--ranking)" }, { name: "pixels" },
  ];
  const table = document.querySelector("#confusion table");
  const rows = pairs.map((pair) => [pair.true, pair.predicted, pair.share, pair.pixels]);
  new SortableTable(table, columns, rows);
  table.tBodies[0].onclick = (event) => {
    const values = event.target.closest("tr")?.values;
    if (!values) return;
    filter.value = `${values[0]} | ${values[1]}`;
    filter.dispatchEvent(new Event("input"));
    document.querySelector("#classes").scrollIntoView({ behavior: "smooth" });
  };
}
