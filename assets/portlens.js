/* The page's own part: lays out what Python drew, links the cells, keeps the address.
 *
 * A lens is one column of blocks (verdict, matrices, table, chart, code). Python sends the
 * whole column as data; this file updates the same DOM in place, so that zoom, pins and
 * focus survive a change. Text is only ever set through textContent: tensor names are data.
 */
(() => {
  "use strict";

  const MARGIN = { l: 42, r: 6, t: 4, b: 36 };
  const NORMS = 18;
  const GAP = 20;
  const NUMBERS_FROM = 26;
  const LARGEST_CELL = { panels: 28, strip: 24 };
  const MOVING_CELLS = 400;
  const POOLED_NOTE = "Margins: row and column norms. Drag over a part to see it closer, double-click to go back.";

  const el = (tag, className = "", text = "") => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text) node.textContent = text;
    return node;
  };
  const button = (text, className, onClick) => {
    const node = el("button", className, text);
    node.type = "button";
    node.addEventListener("click", onClick);
    return node;
  };
  const decode = (text, Type) =>
    new Type(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const token = (name) =>
    getComputedStyle(document.querySelector(".gradio-container") || document.body)
      .getPropertyValue(name).trim();
  const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
  const number = (v) => {
    if (Number.isNaN(v)) return "NaN";
    if (!Number.isFinite(v)) return v > 0 ? "+∞" : "−∞";
    const size = Math.abs(v);
    const text = size && (size < 1e-3 || size >= 1e5) ? v.toExponential(2) : String(+v.toPrecision(4));
    return text.replace("-", "−");
  };

  /* ---- one matrix ------------------------------------------------------------------- */

  class Panel {
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
      this.tile = null;
      this.values = decode(data.values, Float32Array);
      this.places = data.places ? decode(data.places, Int32Array) : null;
      this.where = null;
      this.caption.textContent = data.title;
      this.note.textContent = data.pooled;
      this.plot.dataset.key = data.key;
      this.plot.setAttribute("aria-label",
        `${data.title}, ${data.axes.join(", ")}. Arrow keys move over the cells.`);
    }

    cellsAt(place) {
      if (!this.places) return null;
      if (!this.where) {
        this.where = new Map();
        this.places.forEach((p, i) => this.where.set(p, i));
      }
      const i = this.where.get(place);
      return i === undefined ? null : [Math.floor(i / this.data.columns), i % this.data.columns];
    }

    draw(cell) {
      const { data } = this;
      const margin = { ...MARGIN };
      if (data.norms) { margin.r += NORMS; margin.t += NORMS; }
      if (this.group.strip) { margin.l = 6; margin.b = 22; }
      const width = Math.round(cell * data.columns) + margin.l + margin.r;
      const height = Math.round(cell * data.rows) + margin.t + margin.b;
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
      window.Plotly.react(this.chart, traces, {
        width, height, margin, xaxis: x, yaxis: y, showlegend: false, hovermode: false,
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
        if (whole) { if (this.tile) { this.tile = null; this.draw(this.cell); } return; }
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
      this.group.lens.say(one
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
        if (!step || this.data.pooled) return;
        e.preventDefault();
        const [r, c] = lens.at && lens.at.panel === this ? lens.at.cell : [0, 0];
        const moved = lens.at && lens.at.panel === this ? [r + step[0], c + step[1]] : [0, 0];
        const clamp = (v, n) => Math.min(Math.max(v, 0), n - 1);
        lens.pin(this, [clamp(moved[0], this.data.rows), clamp(moved[1], this.data.columns)], true);
      });
    }

    dispose() { clearTimeout(this.timer); window.Plotly.purge(this.chart); this.node.remove(); }
  }

  /* ---- blocks ----------------------------------------------------------------------- */

  class Matrices {
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
      const cell = this.cellSize(panels.map((p) => p.data), width);
      panels.forEach((p) => p.draw(cell));
    }

    cellSize(data, width) {
      const largest = this.strip ? LARGEST_CELL.strip : LARGEST_CELL.panels;
      const side = Math.max(...data.map((p) => Math.max(p.rows, p.columns)));
      const edge = this.strip ? 12 : MARGIN.l + MARGIN.r + (data.some((p) => p.norms) ? NORMS : 0);
      const fit = (count) => {
        const rows = [];
        for (let i = 0; i < data.length; i += count) rows.push(data.slice(i, i + count));
        return Math.min(...rows.map((r) =>
          (width - (r.length - 1) * GAP - r.length * edge) / r.reduce((n, p) => n + p.columns, 0)));
      };
      const options = data.map((_, i) => fit(data.length - i));
      const enough = Math.min(largest, this.strip ? 1 : Math.max(2, Math.min(NUMBERS_FROM, 190 / side)));
      let cell = options.find((c) => c >= enough) || Math.max(...options);
      cell = Math.min(cell, largest, this.strip ? largest : Math.max(420 / side, 2));
      return cell > 5 ? Math.floor(cell) : cell;
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

  const KINDS = { matrices: Matrices, chart: Chart, facts: Facts, table: Table, code: Code, note: Note };

  const copyText = async (text, node) => {
    const before = node.textContent;
    try { await navigator.clipboard.writeText(text); node.textContent = "Copied"; }
    catch { node.textContent = "Press Ctrl+C"; }
    setTimeout(() => { node.textContent = before; }, 1200);
  };

  /* ---- the column ------------------------------------------------------------------- */

  class Lens {
    constructor(root, trigger) {
      this.root = root;
      this.trigger = trigger;
      this.blocks = new Map();
      this.verdict = el("div", "pl-verdict");
      this.verdict.setAttribute("role", "status");
      this.readout = el("p", "pl-readout pl-mono");
      this.body = el("div", "pl-body");
      root.append(this.verdict, this.body);
      this.count = 0;
      new ResizeObserver(() => this.resized()).observe(root);
      new MutationObserver(() => this.redraw()).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    }

    update(value) {
      if (!value) return;
      this.drawVerdict(value);
      this.blameField(value.error);
      if (value.error) { this.root.classList.add("pl-stale"); this.count += 1; this.root.dataset.n = this.count; return; }
      this.root.classList.remove("pl-stale");
      this.value = value;
      this.at = null;
      this.pinned = false;
      const ids = new Set(value.blocks.map((b) => b.id));
      for (const [id, block] of this.blocks) if (!ids.has(id)) { block.dispose(); this.blocks.delete(id); }
      value.blocks.forEach((data, i) => {
        let block = this.blocks.get(data.id);
        if (!block) this.blocks.set(data.id, (block = new KINDS[data.kind](this)));
        block.update(data);
        block.node.style.setProperty("--share", data.share || 1);
        block.node.classList.toggle("pl-part", (data.share || 1) < 1);
        if (this.body.children[i] !== block.node) this.body.insertBefore(block.node, this.body.children[i] || null);
      });
      this.placeReadout();
      this.width = 0;
      this.resized();
    }

    placeReadout() {
      const first = this.value.blocks.find((b) => b.kind === "matrices");
      this.readout.hidden = !first;
      if (!first) return;
      this.blocks.get(first.id).head.after(this.readout);
      this.say("");
    }

    drawVerdict(value) {
      const v = value.error ? { kind: "invalid", title: "Not possible", text: value.error } : value.verdict;
      this.verdict.hidden = !v;
      if (!v) return;
      this.verdict.className = `pl-verdict pl-kind-${v.kind}`;
      const words = el("div", "pl-words");
      const line = el("p", "pl-title");
      line.append(el("span", "pl-icon"), el("strong", "", v.title));
      words.append(line, el("p", "pl-text", v.text));
      if (value.error && this.value) words.append(el("p", "pl-hint", "The pictures below are from the last valid input."));
      if (v.fix) { const fix = el("p", "pl-fix", "Fix: "); fix.append(el("code", "", v.fix)); words.append(fix); }
      if (v.detail) {
        const more = el("details", "pl-detail");
        more.append(el("summary", "", "What Flax says"), el("pre", "", v.detail));
        words.append(more);
      }
      const side = el("div", "pl-actions");
      for (const action of value.error ? [] : value.actions || []) {
        side.append(button(action.title, action.primary ? "pl-primary" : "pl-quiet", () => this.trigger("act", { name: action.name })));
      }
      if (value.query !== undefined) {
        const link = button("Copy link", "pl-quiet", () => copyText(location.href, link));
        side.append(link);
      }
      this.verdict.replaceChildren(words, side);
    }

    /* An error that begins "features = 0 is …" belongs to the field of that name. */
    blameField(error) {
      const tab = this.root.closest(".pl-tab");
      if (!tab) return;
      tab.querySelectorAll(".pl-invalid").forEach((n) => n.classList.remove("pl-invalid"));
      const name = error && (error.match(/^(.+?) = /) || [])[1];
      if (!name) return;
      for (const field of tab.querySelectorAll(".pl-controls label")) {
        const title = field.querySelector("[data-testid=block-info]");
        if (title && title.textContent.trim() === name) field.classList.add("pl-invalid");
      }
    }

    resized() {
      const width = Math.floor(this.root.clientWidth);
      if (!width || !this.value || width === this.width) return;
      this.width = width;
      this.redraw();
      this.address();
    }

    redraw() {
      if (!this.width || !this.value) return;
      if (!window.Plotly) { setTimeout(() => this.redraw(), 30); return; }
      for (const block of this.blocks.values()) block.draw(block.node.clientWidth);
      if (this.at) this.show(this.at.panel, this.at.cell);
      this.count += 1;
      this.root.dataset.n = this.count;
    }

    address() {
      const { query } = this.value;
      if (query === undefined || !this.root.offsetParent || !window.portlensSettled) return;
      const kept = [...new URLSearchParams(location.search)].filter(([k]) => k.startsWith("__"));
      const search = `?${[query, new URLSearchParams(kept)].filter(String).join("&")}`;
      if (location.search === search) return;
      history.replaceState(history.state, "", search);
      if (window.parent !== window) window.parent.postMessage({ queryString: query, hash: "" }, "https://huggingface.co");
    }

    allPanels() {
      return [...this.blocks.values()].flatMap((b) => (b.panels ? [...b.panels.values()] : []));
    }

    point(panel, cell) { if (!this.pinned) this.show(panel, cell); }
    leave() { if (!this.pinned) { this.at = null; this.allPanels().forEach((p) => p.clear()); this.say(""); } }
    pin(panel, cell, stay = false) {
      const same = this.pinned && this.at.panel === panel && this.at.cell[0] === cell[0] && this.at.cell[1] === cell[1];
      if (same && !stay) { this.unpin(); return; }
      this.pinned = true;
      this.show(panel, cell);
    }
    unpin() { this.pinned = false; this.leave(); }

    show(panel, cell) {
      this.at = { panel, cell };
      const all = this.allPanels();
      all.forEach((p) => p.clear());
      const [row, column] = cell;
      panel.mark(row, column, "here");
      const i = row * panel.data.columns + column;
      const place = panel.places ? panel.places[i] : -1;
      const peers = panel.data.group === "output"
        ? all.filter((p) => p !== panel && p.data.group === "output" && p.data.rows === panel.data.rows)
        : [];
      peers.forEach((p) => p.mark(row, column, "same"));
      const linked = place < 0 ? [] : all.filter((p) => p !== panel).map((p) => [p, p.cellsAt(place)]).filter(([, c]) => c);
      linked.forEach(([p, c]) => p.mark(...c, "same"));
      this.feed(panel, cell, all);
      this.say(this.story(panel, cell, place, linked, peers, i));
    }

    feed(panel, [row, column], all) {
      const axis = panel.data.output_axis;
      const index = axis === "row" ? row : column;
      if (!axis) return;
      const toOutputs = panel.data.group !== "output";
      for (const p of all) {
        const theirs = p.data.output_axis;
        if (!theirs || p.data.pooled || (p.data.group === "output") !== toOutputs) continue;
        if (theirs === "row") p.mark(index, 0, "feeds", 1, p.data.columns);
        else p.mark(0, index, "feeds", p.data.rows, 1);
      }
    }

    story(panel, [row, column], place, linked, peers, i) {
      const name = (p, [r, c]) => p.group.strip ? "" : `${p.data.symbol}[${r}, ${c}]`;
      if (panel.data.pooled) {
        const [h, w] = panel.data.block;
        return `${panel.data.symbol}[${row * h}:${Math.min((row + 1) * h, panel.data.shape[0])}, ${column * w}:${Math.min((column + 1) * w, panel.data.shape[1])}]: largest ${number(panel.values[i])}`;
      }
      if (panel.data.group === "output") {
        return [panel, ...peers].map((p) => `${p.data.symbol}[${row}, ${column}] = ${number(p.values[i])}`).join("  ·  ");
      }
      if (place < 0) return `${name(panel, [row, column])} = ${number(panel.values[i])}`;
      const places = [[panel, [row, column]], ...linked];
      const file = places.filter(([p]) => p.data.group === "file" && !p.group.strip).map(([p, c]) => name(p, c));
      const leaf = places.filter(([p]) => p.data.group === "leaf").map(([p, c]) => name(p, c));
      return `${[...file, `flat[${place}]`].join(" = ")}${leaf.length ? " → " : ""}${[...leaf].reverse().join(" and ")} = ${number(panel.values[i])}`;
    }

    say(text) {
      this.readout.textContent = text || "Point at a cell, or use the arrow keys, to follow its number through every picture.";
      this.readout.classList.toggle("pl-idle", !text);
    }

    showTile(tile) {
      const panel = tile && this.allPanels().find((p) => p.key === tile.key);
      if (panel) panel.showTile(tile);
    }
  }

  window.PortLens = {
    mount(element, props, watch, trigger) {
      const root = element.querySelector(".pl-lens");
      const lens = new Lens(root, trigger);
      root.lens = lens;
      const draw = () => lens.update(props.value);
      watch("value", draw);
      draw();
    },
    /* The address is left alone until the server has read it (see page.py). */
    settle() {
      document.querySelectorAll(".pl-lens").forEach((root) => root.lens && root.lens.value && root.lens.address());
    },
    tile(id, value) {
      const root = document.querySelector(`#${id} .pl-lens`);
      if (root && root.lens) root.lens.showTile(value);
    },
  };
})();
