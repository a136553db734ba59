/* One matrix: Plotly draws it, an overlay marks its cells, the pointer and the arrow keys move. */

import { decode, el, number, token } from "./page.js";
import { placeAt, positionAt } from "./walk.js";

export const MARGIN = { l: 42, r: 6, t: 4, b: 36 };
export const NORMS = 18;
export const NUMBERS_FROM = 26;
const LOWEST_ROW = 16;
const NARROWEST = 216;  // pixels of a title before it breaks

export class Panel {
  constructor(group, key) {
    this.group = group;
    this.key = key;
    this.node = el("figure", "pl-panel");
    this.caption = el("figcaption", "pl-panel-title");
    this.plot = el("div", "pl-plot");
    this.chart = el("div", "pl-chart-area");
    this.over = el("div", "pl-over");
    this.norms = el("div", "pl-norms");
    this.note = el("p", "pl-panel-note");
    this.plot.append(this.chart, this.norms, this.over);
    this.plot.tabIndex = 0;
    this.plot.setAttribute("role", "img");
    this.node.append(this.caption, this.plot, this.note);
    this.listen();
  }

  update(data) {
    this.data = data;
    this.unit = data.block || [1, 1];  // source rows and columns of one cell
    if (this.tile) this.drawn = "";
    this.tile = null;
    this.values = decode(data.values, Float32Array);
    this.places = data.places ? decode(data.places, Int32Array) : null;
    this.tops = data.tops ? decode(data.tops, Int32Array) : null;  // where each pooled number stands
    this.where = null;
    this.caption.textContent = data.title;
    this.note.textContent = data.pooled;
    this.plot.dataset.key = data.key;
    this.plot.setAttribute("aria-label",
      `${data.title}, ${data.axes.join(", ")}. Arrow keys move over the cells.`);
  }

  /* The flat place in the file of the number that a cell shows, -1 where it is not known. */
  placeOf(row, column) {
    const i = row * this.data.columns + column;
    if (this.places) return this.places[i];
    return this.data.walk && this.tops && this.tops[i] >= 0 ? placeAt(this.data.walk, this.tops[i]) : -1;
  }

  /* Where the number of a place stands in the matrix: [row, column], or null. */
  indexAt(place) {
    const [, width] = this.data.shape;
    let i;
    if (this.data.walk) i = positionAt(this.data.walk, place);
    else if (this.places) {
      if (!this.where) {
        this.where = new Map();
        this.places.forEach((p, at) => this.where.set(p, at));
      }
      i = this.where.get(place);
    }
    return i === undefined || i < 0 ? null : [Math.floor(i / width), i % width];
  }

  cellsAt(place) {
    const at = this.indexAt(place);
    return at && at.map((v, axis) => Math.floor(v / this.unit[axis]));
  }

  draw(cell) {
    const { data } = this;
    const drawn = [cell, token("--pl-ink-soft"), this.key, JSON.stringify(data)].join();
    if (drawn === this.drawn) return;  // the same numbers at the same size
    this.drawn = drawn;
    const margin = { ...MARGIN };
    if (data.norms) { margin.r += NORMS; margin.t += NORMS; }
    if (this.group.strip) { margin.l = 6; margin.b = 22; }
    const width = Math.round(cell * data.columns) + margin.l + margin.r;
    const tall = data.rows === 1 ? Math.max(cell, LOWEST_ROW) : cell;
    const height = Math.round(tall * data.rows) + margin.t + margin.b;
    const ink = token("--pl-ink-soft");
    const ticks = (count) => {
      const step = [1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100].find((s) => s * cell >= (count > 100 ? 26 : 18)) || 128;
      return Array.from({ length: Math.ceil(count / step) }, (_, i) => i * step);
    };
    const axis = (title, count, unit) => ({
      title: { text: title, standoff: 4, font: { size: 12, color: ink } },
      ...(data.pooled ? { nticks: 5, separatethousands: true } : { tickvals: ticks(count) }),
      tickfont: { size: 10, color: ink, family: "IBM Plex Mono, monospace" },
      tickangle: 0, showgrid: false, zeroline: false, ticks: "", fixedrange: !data.pooled,
      range: [-0.5, count * unit - 0.5],
    });
    const [height1, width1] = this.unit;
    const x = axis(this.group.strip ? "" : data.axes[1], data.columns, width1);
    const y = axis(this.group.strip ? "" : data.axes[0], data.rows, height1);
    y.range.reverse();
    if (this.group.strip) { y.showticklabels = false; }
    const traces = data.figure.data.map((t) => ({ ...t }));
    if (data.pooled) Object.assign(traces[0], { x0: (width1 - 1) / 2, dx: width1, y0: (height1 - 1) / 2, dy: height1 });
    if (cell < 4) { traces[0].xgap = 0; traces[0].ygap = 0; }
    traces[0].texttemplate = traces[0].text && cell >= NUMBERS_FROM ? "%{text}" : "";
    const longest = Math.max(1, ...(traces[0].text || []).flat().map((t) => t.length));
    traces[0].textfont = { size: Math.min(10, (cell - 3) / (0.6 * longest)), family: "IBM Plex Mono, monospace" };
    if (traces[1]) traces[1].mode = cell >= NUMBERS_FROM ? "text" : "markers";
    this.cell = cell;
    this.plot.style.width = `${width}px`;
    this.plot.style.height = `${height}px`;
    this.node.style.maxWidth = `${Math.max(width, NARROWEST)}px`;
    window.Plotly.react(this.chart, traces, {
      width, height, margin, xaxis: x, yaxis: y, showlegend: false, hovermode: false,
      shapes: this.tileLines(),
      dragmode: data.pooled ? "zoom" : false,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: token("--pl-cell-gap"),
      font: { family: "IBM Plex Sans, system-ui, sans-serif", color: ink },
    }, { displayModeBar: false, responsive: false, showTips: false, staticPlot: !data.pooled });
    if (data.pooled && !this.zoomable) {
      this.zoomable = true;
      this.chart.on("plotly_relayout", () => this.zoomed());
    }
    this.drawNorms(margin, cell);
  }

  /* Lines between the tiles of an array of more than two axes. */
  tileLines() {
    const { tile, rows, columns, pooled } = this.data;
    if (!tile || pooled) return [];
    const line = { width: 2, color: token("--pl-ink-soft") };
    const lines = [];
    for (let r = tile[0]; r < rows; r += tile[0]) lines.push({ type: "line", x0: -0.5, x1: columns - 0.5, y0: r - 0.5, y1: r - 0.5, line });
    for (let c = tile[1]; c < columns; c += tile[1]) lines.push({ type: "line", x0: c - 0.5, x1: c - 0.5, y0: -0.5, y1: rows - 0.5, line });
    return lines.length > 64 ? [] : lines;
  }

  drawNorms(margin, cell) {
    this.norms.replaceChildren();
    if (!this.data.norms) return;
    const [rows, columns] = this.data.norms;
    const bar = (left, top, width, height) => {
      const node = el("i");
      Object.assign(node.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
      return node;
    };
    const depth = NORMS - 4;
    this.norms.append(
      ...rows.map((v, i) => bar(margin.l + cell * this.data.columns + 3, margin.t + i * cell, v * depth, cell + 0.6)),
      ...columns.map((v, i) => bar(margin.l + i * cell, margin.t - 3 - v * depth, cell + 0.6, v * depth)));
  }

  zoomed() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const { xaxis, yaxis } = this.chart._fullLayout;
      const [height, width] = this.unit;
      const whole = xaxis.range[0] <= -0.5 && xaxis.range[1] >= this.data.columns * width - 0.5
        && yaxis.range[1] <= -0.5 && yaxis.range[0] >= this.data.rows * height - 0.5;
      if (whole) { if (this.tile) { this.tile = null; this.drawn = ""; this.draw(this.cell); } return; }
      this.group.lens.trigger("zoom", {
        key: this.key,
        rows: [Math.floor(yaxis.range[1] + 0.5), Math.ceil(yaxis.range[0] + 0.5)],
        columns: [Math.floor(xaxis.range[0] + 0.5), Math.ceil(xaxis.range[1] + 0.5)],
      });
    }, 70);
  }

  showTile(tile) {
    const [dy, dx] = tile.block;
    const [top, , left] = tile.extent;
    const flat = decode(tile.values, Float32Array);
    const z = Array.from({ length: tile.rows }, (_, r) => flat.subarray(r * tile.columns, (r + 1) * tile.columns));
    this.tile = { ...tile, flat };
    window.Plotly.restyle(this.chart, {
      z: [z], x0: [left + (dx - 1) / 2], dx: [dx], y0: [top + (dy - 1) / 2], dy: [dy],
    }, [0]);
    this.plot.dataset.tile = tile.extent.join(",");
  }

  cellUnder(event) {
    const layout = this.chart._fullLayout;
    if (!layout) return null;
    const box = this.chart.getBoundingClientRect();
    const x = layout.xaxis.p2d(event.clientX - box.left - layout.xaxis._offset);
    const y = layout.yaxis.p2d(event.clientY - box.top - layout.yaxis._offset);
    const column = Math.floor((x + 0.5) / this.unit[1]), row = Math.floor((y + 0.5) / this.unit[0]);
    if (this.tile) return this.tileCell(x, y);
    const inside = row >= 0 && column >= 0 && row < this.data.rows && column < this.data.columns;
    return inside ? [row, column] : null;
  }

  tileCell(x, y) {
    const { tile } = this;
    const row = Math.floor((y + 0.5 - tile.extent[0]) / tile.block[0]);
    const column = Math.floor((x + 0.5 - tile.extent[2]) / tile.block[1]);
    if (row < 0 || column < 0 || row >= tile.rows || column >= tile.columns) return null;
    const value = tile.flat[row * tile.columns + column];
    const at = [tile.extent[0] + row * tile.block[0], tile.extent[2] + column * tile.block[1]];
    const one = tile.block[0] * tile.block[1] === 1;
    if (one && this.data.walk) this.group.lens.follow(this, at, value);
    else this.group.lens.say(one
      ? `${this.data.symbol}[${at.join(", ")}] = ${number(value)}`
      : `${this.data.symbol}[${at[0]}:${at[0] + tile.block[0]}, ${at[1]}:${at[1] + tile.block[1]}]: largest ${number(value)}`);
    return null;
  }

  rect(row, column, rows = 1, columns = 1) {
    const { xaxis, yaxis } = this.chart._fullLayout;
    const [height, width] = this.unit;
    const left = xaxis._offset + xaxis.d2p(column * width - 0.5);
    const top = yaxis._offset + yaxis.d2p(row * height - 0.5);
    return { left, top, width: xaxis.d2p(columns * width) - xaxis.d2p(0), height: yaxis.d2p(rows * height) - yaxis.d2p(0) };
  }

  mark(row, column, kind, rows = 1, columns = 1) {
    if (!this.chart._fullLayout || this.tile) return;
    const node = el("i", `pl-mark pl-${kind}`);
    for (const [k, v] of Object.entries(this.rect(row, column, rows, columns))) node.style[k] = `${v}px`;
    this.over.append(node);
  }

  clear() { this.over.replaceChildren(); }

  listen() {
    const lens = this.group.lens;
    this.plot.addEventListener("pointermove", (e) => {
      const cell = this.cellUnder(e);
      if (cell) lens.point(this, cell);
    });
    this.plot.addEventListener("pointerleave", () => lens.leave());
    this.plot.addEventListener("click", (e) => {
      const cell = this.cellUnder(e);
      if (cell) lens.pin(this, cell);
    });
    this.plot.addEventListener("keydown", (e) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[e.key];
      if (e.key === "Escape") lens.unpin();
      if (!step || this.tile) return;
      e.preventDefault();
      const [r, c] = lens.at && lens.at.panel === this ? lens.at.cell : [0, 0];
      const moved = lens.at && lens.at.panel === this ? [r + step[0], c + step[1]] : [0, 0];
      const clamp = (v, n) => Math.min(Math.max(v, 0), n - 1);
      lens.pin(this, [clamp(moved[0], this.data.rows), clamp(moved[1], this.data.columns)], true);
    });
  }

  dispose() { clearTimeout(this.timer); window.Plotly.purge(this.chart); this.node.remove(); }
}
