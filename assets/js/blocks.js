/* The other blocks of a column: chart, facts, code, findings, grid, choices, note, rule. */

import { button, copyText, el, token } from "./page.js";
import { Matrices } from "./matrices.js";
import { Table } from "./table.js";

class Chart {
  constructor() {
    this.node = el("section", "pl-block");
    this.title = el("h3");
    this.chart = el("div");
    this.note = el("p", "pl-note");
    this.node.append(this.title, this.chart, this.note);
  }
  update(block) { this.block = block; this.title.textContent = block.title; this.note.textContent = block.note || ""; }
  draw(width) {
    const ink = token("--pl-ink-soft"), line = token("--pl-line");
    const { figure, height } = this.block;
    const layout = { ...figure.layout, width, height, showlegend: false, hovermode: "closest",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "IBM Plex Sans, system-ui, sans-serif", size: 12, color: ink },
      hoverlabel: { bgcolor: token("--pl-paper"), bordercolor: line, font: { color: token("--pl-ink") } } };
    if (layout.meta?.room) this.fit(layout, figure.data[0].y, width);
    for (const name of ["xaxis", "yaxis"]) layout[name] = { gridcolor: line, zerolinecolor: line, fixedrange: true, ...layout[name] };
    window.Plotly.react(this.chart, figure.data, layout, { displayModeBar: false, responsive: false });
  }
  /* A chart of stages: names take what they need, up to two fifths; longer ones lose their beginning. */
  fit(layout, names, width) {
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = "12px IBM Plex Sans, system-ui, sans-serif";
    const most = width * 0.4, long = (text) => pen.measureText(text).width;
    const short = (name) => {
      let rest = name;
      while (rest.length > 1 && long(`…${rest}`) > most) rest = rest.slice(1);
      return rest === name || long(name) <= most ? name : `…${rest}`;
    };
    const shown = names.map(short), left = Math.ceil(Math.max(...shown.map(long))) + 20;
    layout.margin = { ...layout.margin, l: left };
    layout.yaxis = { ...layout.yaxis, tickmode: "array", tickvals: names, ticktext: shown.map((name) => `${name}  `) };
    const [low, top] = layout.xaxis.range, room = layout.meta.room, span = width - left - layout.margin.r;
    layout.xaxis = { ...layout.xaxis, range: [low, low + (top - low) * span / Math.max(span - room, span / 4)] };
  }
  dispose() { window.Plotly.purge(this.chart); this.node.remove(); }
}

class Facts {
  constructor() { this.node = el("section", "pl-block"); this.title = el("h3"); this.list = el("dl", "pl-facts"); this.note = el("p", "pl-warning"); this.node.append(this.title, this.list, this.note); }
  update(block) {
    this.note.textContent = block.note || "";
    this.title.textContent = block.title;
    this.list.classList.toggle("pl-prose", Boolean(block.prose));
    this.list.replaceChildren(...block.rows.flatMap(([name, value, kind]) => [el("dt", "", name), el("dd", block.prose && kind !== "code" ? "" : "pl-mono", value)]));
  }
  draw() {}
  dispose() { this.node.remove(); }
}

class Code {
  constructor() {
    this.node = el("section", "pl-block");
    this.head = el("header", "pl-block-head");
    this.title = el("h3");
    this.tools = el("div", "pl-tools");
    this.pre = el("pre", "pl-code");
    this.pre.tabIndex = 0;
    this.code = el("code");
    this.pre.append(this.code);
    this.head.append(this.title, this.tools);
    this.node.append(this.head, this.pre);
    this.at = 0;
  }
  update(block) {
    this.title.textContent = block.title;
    this.at = Math.min(this.at, block.tabs.length - 1);
    const show = () => {
      this.code.textContent = block.tabs[this.at].text;
      this.tools.querySelectorAll("[data-tab]").forEach((b, i) => b.setAttribute("aria-pressed", String(i === this.at)));
    };
    this.tools.replaceChildren();
    if (block.tabs.length > 1) {
      block.tabs.forEach((tab, i) => {
        const b = button(tab.title, "pl-quiet", () => { this.at = i; show(); });
        b.dataset.tab = i;
        this.tools.append(b);
      });
    }
    const copy = button("Copy", "pl-quiet", () => copyText(this.code.textContent, copy));
    this.tools.append(copy);
    show();
  }
  draw() {}
  dispose() { this.node.remove(); }
}

class Findings {
  constructor() { this.node = el("section", "pl-block"); this.title = el("h3"); this.list = el("ol", "pl-findings"); this.node.append(this.title, this.list); }
  update(block) {
    this.title.textContent = block.title;
    this.list.replaceChildren(...block.rows.map((row) => {
      const item = el("li", `pl-finding pl-tone-${row.status}`);
      item.append(el("p", "pl-finding-title", row.title));
      if (row.leaves.length) item.append(el("p", "pl-mono pl-below", row.leaves.join("  ")));
      if (row.fix) {
        const line = el("p", "pl-fix", row.count > 1 ? `Fix, the first of ${row.count}: ` : "Fix: ");
        const copy = button(row.count > 1 ? `Copy all ${row.count}` : "Copy", "pl-quiet", () => copyText(row.all || row.fix, copy));
        line.append(el("code", "", row.fix), copy);
        item.append(line);
      }
      return item;
    }));
  }
  draw() {}
  dispose() { this.node.remove(); }
}

/* Faults down, checks across: a status in each cell, its story under the pointer. */
class Grid {
  constructor(lens) {
    this.lens = lens;
    this.node = el("section", "pl-block");
    this.title = el("h3");
    this.story = el("p", "pl-story");
    this.story.setAttribute("aria-live", "polite");
    this.scroll = el("div", "pl-grid-scroll");
    this.table = el("table", "pl-grid");
    this.legend = el("p", "pl-grid-legend");
    this.scroll.append(this.table);
    this.node.append(this.title, this.story, this.scroll, this.legend);
  }

  update(block) {
    this.title.textContent = block.title;
    this.tell("");
    const head = el("tr");
    head.append(el("th"), ...block.columns.map((c) => {
      const th = el("th", "", c.title);
      th.scope = "col";
      th.addEventListener("pointerenter", () => this.tell(`${c.title}: ${c.about}`));
      return th;
    }));
    const body = block.rows.map((row) => {
      const line = el("tr");
      const name = el("th", "", row.title);
      name.scope = "row";
      line.append(name, ...row.cells.map((cell, i) => {
        const td = el("td");
        const column = block.columns[i];
        const text = `${row.title}, ${column.title}: ${WORDS[cell.status]}. ${cell.story}`;
        const b = button(SIGNS[cell.status], `pl-cell pl-cell-${cell.status.replace("/", "")}`, () => this.lens.trigger("cell", { row: row.key, column: column.key }));
        b.setAttribute("aria-label", text);
        for (const name of ["pointerenter", "focus"]) b.addEventListener(name, () => this.tell(text));
        td.append(b);
        return td;
      }));
      return line;
    });
    const foot = el("tr", "pl-grid-foot");
    foot.append(...block.foot.map((t, i) => el(i ? "td" : "th", "pl-mono", t)));
    this.table.replaceChildren(head, ...body, foot);
    this.legend.replaceChildren(...block.legend.map(({ status, text }) => {
      const item = el("span");
      item.append(el("i", `pl-cell pl-cell-${status.replace("/", "")}`, SIGNS[status]), el("span", "", ` ${WORDS[status]}: ${text}`));
      return item;
    }));
  }

  tell(text) { this.story.textContent = text || "Point at a cell for its story; click it to open that case."; }
  draw() {}
  dispose() { this.node.remove(); }
}
const SIGNS = { caught: "✓", missed: "✕", equivalent: "=", passed: "✓", false_alarm: "!", "n/a": "·" };
const WORDS = { caught: "seen", missed: "missed", equivalent: "equivalent", passed: "passes", false_alarm: "false alarm", "n/a": "not applicable" };

/* A question to the person: one answer of a few, for this leaf or for all that are alike. */
class Choices {
  constructor(lens) {
    this.lens = lens;
    this.node = el("fieldset", "pl-block pl-choices");
    this.title = el("legend");
    this.list = el("div", "pl-options");
    this.more = el("label", "pl-alike");
    this.all = el("input");
    this.all.type = "checkbox";
    this.words = el("span");
    this.more.append(this.all, this.words);
    this.node.append(this.title, this.list, this.more);
  }
  update(block) {
    this.title.textContent = block.title;
    this.more.hidden = !block.alike;
    if (this.more.hidden) this.all.checked = false;
    this.words.textContent = block.alike
      ? `Answer the same question alike in ${block.alike === 1 ? "one other layer" : `${block.alike} other layers`}`
      : "";
    this.list.replaceChildren(...block.options.map(({ text, below }, i) => {
      const line = el("label"), radio = el("input"), words = el("span");
      radio.type = "radio";
      radio.name = `pl-${block.id}`;
      radio.checked = i === block.chosen;
      radio.addEventListener("change", () => this.lens.trigger("act", { name: block.id, choice: i, all: this.all.checked }));
      words.append(el("span", "pl-mono", text));
      if (below) words.append(el("span", "pl-below", below));
      line.append(radio, words);
      return line;
    }));
  }
  draw() {}
  dispose() { this.node.remove(); }
}

class Note {
  constructor() { this.node = el("p", "pl-block pl-note"); }
  update(block) { this.node.textContent = block.text; }
  draw() {}
  dispose() { this.node.remove(); }
}

/* Named axes moving from their old place to their new one (see chips.py). */
class Rule {
  constructor() {
    this.node = el("section", "pl-block");
    this.title = el("h3");
    this.stage = el("div", "pl-rule");
    this.lines = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.lines.setAttribute("aria-hidden", "true");
    this.rows = [el("div", "pl-axes"), el("div", "pl-axes")];
    this.pattern = el("p", "pl-mono pl-note");
    this.stage.append(this.lines, ...this.rows);
    this.node.append(this.title, this.stage, this.pattern);
  }

  update(block) {
    this.title.textContent = block.title;
    this.pattern.textContent = block.pattern;
    const names = [...new Set(block.left.flat().map((c) => c.name))];
    const chip = (c) => {
      const label = `${c.flipped ? "−" : ""}${c.name === "1" ? "" : `${c.name} = `}${c.size}`;
      const node = el("span", `pl-chip pl-hue-${names.indexOf(c.name) % 6}`, c.taken ? `${label}, take ${c.taken}` : label);
      node.dataset.axis = c.name;
      if (c.taken && !c.taken.includes(":")) node.classList.add("pl-taken");
      return node;
    };
    [block.left, block.right].forEach((side, i) => {
      const axes = side.map((axis) => {
        const group = el("span", axis.length > 1 ? "pl-axis pl-merged" : "pl-axis");
        group.append(...axis.map(chip));
        return group;
      });
      this.rows[i].replaceChildren(el("span", "pl-side", block.sides[i]), ...axes);
    });
  }

  draw() {
    const base = this.stage.getBoundingClientRect();
    this.lines.replaceChildren();
    for (const from of this.rows[0].querySelectorAll(".pl-chip")) {
      const to = [...this.rows[1].querySelectorAll(".pl-chip")].find((n) => n.dataset.axis === from.dataset.axis);
      if (!to || from.dataset.axis === "1") continue;
      const [a, b] = [from, to].map((n) => n.getBoundingClientRect());
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      const [x0, y0, x1, y1] = [a.left + a.width / 2 - base.left, a.bottom - base.top, b.left + b.width / 2 - base.left, b.top - base.top];
      const bend = (y1 - y0) / 2;
      path.setAttribute("d", `M${x0} ${y0} C${x0} ${y0 + bend} ${x1} ${y1 - bend} ${x1} ${y1}`);
      path.setAttribute("class", from.className.match(/pl-hue-\d/)[0]);
      this.lines.append(path);
    }
  }

  dispose() { this.node.remove(); }
}

export const KINDS = { choices: Choices, grid: Grid, rule: Rule, findings: Findings, matrices: Matrices, chart: Chart, facts: Facts, table: Table, code: Code, note: Note };
