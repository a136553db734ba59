/* The other blocks of a column: chart, facts, table, code, note. */

import { button, copyText, el, token } from "./page.js";
import { Matrices } from "./matrices.js";

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
    for (const name of ["xaxis", "yaxis"]) layout[name] = { gridcolor: line, zerolinecolor: line, fixedrange: true, ...layout[name] };
    window.Plotly.react(this.chart, figure.data, layout, { displayModeBar: false, responsive: false });
  }
  dispose() { window.Plotly.purge(this.chart); this.node.remove(); }
}

class Facts {
  constructor() { this.node = el("section", "pl-block"); this.title = el("h3"); this.list = el("dl", "pl-facts"); this.note = el("p", "pl-warning"); this.node.append(this.title, this.list, this.note); }
  update(block) {
    this.note.textContent = block.note || "";
    this.title.textContent = block.title;
    this.list.replaceChildren(...block.rows.flatMap(([name, value]) => [el("dt", "", name), el("dd", "pl-mono", value)]));
  }
  draw() {}
  dispose() { this.node.remove(); }
}

class Table {
  constructor(lens) {
    this.lens = lens;
    this.node = el("section", "pl-block");
    this.head = el("header", "pl-block-head");
    this.title = el("h3");
    this.only = el("label", "pl-only");
    this.check = el("input");
    this.check.type = "checkbox";
    this.check.addEventListener("change", () => this.fill());
    this.only.append(this.check, el("span", "", "Only what is not right"));
    this.head.append(this.title, this.only);
    this.scroll = el("div", "pl-scroll");
    this.table = el("table", "pl-table");
    this.note = el("p", "pl-note");
    this.scroll.append(this.table);
    this.node.append(this.head, this.scroll, this.note);
  }
  update(block) {
    this.block = block;
    this.title.textContent = block.title;
    this.note.textContent = block.note || "";
    this.only.hidden = !block.rows.some((r) => r.status && r.status !== "ok");
    if (this.only.hidden) this.check.checked = false;
    this.fill();
  }
  fill() {
    const { columns, rows, selected, event, mono } = this.block;
    const head = el("tr");
    head.append(...columns.map((c) => el("th", "", c)));
    const body = rows.filter((r) => !this.check.checked || (r.status && r.status !== "ok")).map((r) => {
      const line = el("tr", r.key === selected ? "pl-selected" : "");
      r.cells.forEach((content) => {
        const { text, status, below } = typeof content === "string" ? { text: content } : content;
        const cell = el("td", status || !mono ? "" : "pl-mono");
        cell.append(el("span", status ? `pl-status pl-status-${status}` : "", text));
        if (below) cell.append(el("span", "pl-below", below));
        line.append(cell);
      });
      if (event && r.key) {
        line.tabIndex = 0;
        line.dataset.key = r.key;
        line.setAttribute("aria-selected", String(r.key === selected));
        const choose = () => this.lens.trigger(event, { table: this.block.id, key: r.key });
        line.addEventListener("click", choose);
        line.addEventListener("keydown", (e) => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); choose(); } });
      }
      return line;
    });
    const thead = el("thead"), tbody = el("tbody");
    thead.append(head);
    tbody.append(...body);
    this.table.replaceChildren(thead, tbody);
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

class Note {
  constructor() { this.node = el("p", "pl-block pl-note"); }
  update(block) { this.node.textContent = block.text; }
  draw() {}
  dispose() { this.node.remove(); }
}

export const KINDS = { matrices: Matrices, chart: Chart, facts: Facts, table: Table, code: Code, note: Note };
