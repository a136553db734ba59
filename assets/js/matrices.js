/* A row of matrices with one cell size, and the move that is played between two of them. */

import { button, calm, el, number } from "./page.js";
import { MARGIN, NORMS, NUMBERS_FROM, Panel } from "./panel.js";

const GAP = 20;
const LARGEST_CELL = { panels: 28, strip: 24 };
const LEAST = 1.5;  // pixels of a cell
const MOVING_CELLS = 400;
const POOLED_NOTE = "Margins: row and column norms. Drag over a part to see it closer, double-click to go back.";

export class Matrices {
  constructor(lens) {
    this.lens = lens;
    this.panels = new Map();
    this.node = el("section", "pl-block");
    this.head = el("header", "pl-block-head");
    this.title = el("h3");
    this.legend = el("div", "pl-legend");
    this.tools = el("div", "pl-tools");
    this.row = el("div", "pl-panels");
    this.note = el("p", "pl-note");
    this.head.append(this.title, this.note, this.tools, this.legend);
    this.node.append(this.head, this.row);
  }

  update(block) {
    this.block = block;
    const pooled = block.panels.some((p) => p.pooled);
    this.strip = block.layout === "strip";
    this.node.classList.toggle("pl-strip", this.strip);
    this.title.textContent = block.title;
    this.note.textContent = [block.note, pooled && POOLED_NOTE].filter(Boolean).join(" ");
    const keys = new Set(block.panels.map((p) => p.key));
    for (const [key, panel] of this.panels) if (!keys.has(key)) { panel.dispose(); this.panels.delete(key); }
    block.panels.forEach((data, i) => {
      let panel = this.panels.get(data.key);
      if (!panel) this.panels.set(data.key, (panel = new Panel(this, data.key)));
      panel.update(data);
      if (this.row.children[i] !== panel.node) this.row.insertBefore(panel.node, this.row.children[i] || null);
    });
    this.tools.replaceChildren();
    const moving = block.motion && block.panels.every((p) => !p.pooled && p.rows * p.columns <= MOVING_CELLS);
    if (moving) this.tools.append(button("Play the move", "pl-quiet", () => this.play(...block.motion)));
    this.drawLegend(block.legend);
  }

  drawLegend(legend) {
    this.legend.replaceChildren();
    if (!legend) return;
    const bar = el("span", `pl-bar pl-bar-${legend.scale}`);
    const marks = legend.scale === "excess" ? ["≤ 1", `10${"⁰¹²³⁴⁵⁶⁷⁸⁹"[legend.limit]}`] : [`−${number(legend.limit)}`, `+${number(legend.limit)}`];
    this.legend.append(el("span", "", legend.name || ""), el("span", "pl-mono", marks[0]), bar, el("span", "pl-mono", marks[1]));
  }

  draw(width) {
    const panels = this.block.panels.map((p) => this.panels.get(p.key));
    const { cell, rows } = this.arranged(panels.map((p) => p.data), width);
    this.row.classList.toggle("pl-led", rows.length > 1 && rows[0].length < rows[1].length);
    panels.forEach((p) => p.draw(cell));
  }

  /* The rows that the panels stand in, and the largest cell that fits them all: in one row, the
   * source above what was made of it, or so many to a row as leave a cell room enough. */
  arranged(data, width) {
    const largest = this.strip ? LARGEST_CELL.strip : LARGEST_CELL.panels;
    const side = Math.max(...data.map((p) => Math.max(p.rows, p.columns)));
    const edge = this.strip ? 12 : MARGIN.l + MARGIN.r + (data.some((p) => p.norms) ? NORMS : 0);
    const chunks = (count) => Array.from({ length: Math.ceil(data.length / count) }, (_, i) => data.slice(i * count, (i + 1) * count));
    const tries = data.map((_, i) => chunks(data.length - i));
    if (data.length > 2 && data[0].group === "file") tries.splice(1, 0, [data.slice(0, 1), data.slice(1)]);
    const fits = tries.map((rows) => ({ rows, cell: Math.min(...rows.map((r) =>
      (width - (r.length - 1) * GAP - r.length * (edge + 3)) / r.reduce((n, p) => n + p.columns, 0))) }));
    const enough = Math.min(largest, this.strip ? 1 : Math.max(LEAST, Math.min(NUMBERS_FROM, 180 / side)));
    const widest = fits.reduce((a, b) => (b.cell > a.cell ? b : a));
    const { rows, cell: fit } = fits.find((f) => f.cell >= enough) || widest;
    const cell = Math.min(fit, largest, this.strip ? largest : Math.max(420 / side, LEAST));
    return { rows, cell: cell > 5 ? Math.floor(cell) : cell };
  }

  play(from, to) {
    const [a, b] = [this.panels.get(from), this.panels.get(to)];
    if (!a || !b || !a.places || !b.places ) return;
    this.lens.unpin();
    const base = this.row.getBoundingClientRect();
    const layer = el("div", "pl-flight");
    this.row.append(layer);
    const colour = (value) => {
      const { zmin, zmax, colorscale } = a.chart._fullData[0];
      const t = Math.min(Math.max((value - zmin) / (zmax - zmin), 0), 1);
      const k = Math.max(1, colorscale.findIndex(([s]) => s >= t));
      const [[s0, c0], [s1, c1]] = [colorscale[k - 1], colorscale[k]];
      return `color-mix(in srgb, ${c1} ${(100 * (t - s0)) / (s1 - s0 || 1)}%, ${c0})`;
    };
    b.chart.classList.add("pl-faded");
    const boxes = [a, b].map((p) => p.chart.getBoundingClientRect());
    const flights = [...a.places.keys()].map((i) => {
      const place = a.places[i];
      const target = b.cellsAt(place);
      if (!target) return null;
      const start = a.rect(Math.floor(i / a.data.columns), i % a.data.columns);
      const end = b.rect(...target);
      const node = el("i", "", a.cell >= 18 ? String(place) : "");
      Object.assign(node.style, {
        left: `${boxes[0].left - base.left + start.left}px`, top: `${boxes[0].top - base.top + start.top}px`,
        width: `${start.width}px`, height: `${start.height}px`, background: colour(a.values[i]),
      });
      layer.append(node);
      const dx = boxes[1].left + end.left - boxes[0].left - start.left;
      const dy = boxes[1].top + end.top - boxes[0].top - start.top;
      const wait = calm() ? 0 : place * Math.min(40, 1600 / a.places.length);
      return node.animate([{ transform: "none" }, { transform: `translate(${dx}px, ${dy}px)` }],
        { duration: calm() ? 0 : 700, delay: wait, fill: "forwards", easing: "ease-in-out" }).finished;
    }).filter(Boolean);
    Promise.all(flights).then(() => new Promise((r) => setTimeout(r, calm() ? 0 : 500)))
      .finally(() => { layer.remove(); b.chart.classList.remove("pl-faded"); });
  }

  dispose() { this.panels.forEach((p) => p.dispose()); this.node.remove(); }
}
