/* A lens is one column of blocks (verdict, matrices, table, chart, code). Python sends the
 * whole column as data; the same DOM is updated in place, so that zoom, pins and focus
 * survive a change. */

import { KINDS } from "./blocks.js";
import { button, copyText, el, indexOf, number } from "./page.js";
import { placeAt } from "./walk.js";

class Lens {
  constructor(root, trigger) {
    this.root = root;
    this.trigger = trigger;
    this.blocks = new Map();
    this.verdict = el("div", "pl-verdict");
    this.verdict.setAttribute("role", "status");
    this.readout = el("p", "pl-readout pl-mono");
    this.body = el("div", "pl-body");
    this.waiting = el("p", "pl-waiting", "Working. The first picture takes a few seconds.");
    this.verdict.hidden = true;
    root.append(this.verdict, this.waiting, this.body);
    this.count = 0;
    new ResizeObserver(() => this.resized()).observe(root);
    new MutationObserver(() => this.redraw()).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  }

  update(value) {
    if (!value) return;
    this.waiting.remove();
    this.drawVerdict(value);
    this.blameField(value.error);
    if (value.error) { this.root.classList.add("pl-stale"); this.count += 1; this.root.dataset.n = this.count; return; }
    this.root.classList.remove("pl-stale");
    this.value = value;
    this.at = null;
    this.pinned = false;
    const ids = new Set(value.blocks.map((b) => b.id));
    for (const [id, block] of this.blocks) if (!ids.has(id)) { block.dispose(); this.blocks.delete(id); }
    let place = 0;
    value.blocks.forEach((data) => {
      let block = this.blocks.get(data.id);
      if (block && !(block instanceof KINDS[data.kind])) { block.dispose(); block = null; }
      if (!block) this.blocks.set(data.id, (block = new KINDS[data.kind](this)));
      block.update(data);
      block.node.style.setProperty("--share", data.share || 1);
      block.node.classList.toggle("pl-part", (data.share || 1) < 1);
      const host = data.inside && this.blocks.get(data.inside);
      if (host) { if (block.node.parentNode !== host.node) host.node.append(block.node); return; }
      if (this.body.children[place] !== block.node) this.body.insertBefore(block.node, this.body.children[place] || null);
      place += 1;
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
    if (!width) { this.away = true; return; }  // in a tab that is not open
    if (!this.value) return;
    if (this.away) { this.away = false; this.address(); }
    if (width === this.width) return;
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
    const place = panel.placeOf(row, column);
    const peers = panel.data.group === "output"
      ? all.filter((p) => p !== panel && p.data.group === "output" && p.data.rows === panel.data.rows)
      : [];
    peers.forEach((p) => p.mark(row, column, "same"));
    const linked = this.link(panel, place, all);
    this.feed(panel, cell, all);
    this.say(this.story(panel, cell, place, linked, peers, i));
  }

  /* The panels that hold the number of a place, their cell of it marked. */
  link(panel, place, all) {
    const linked = place < 0 ? [] : all.filter((p) => p !== panel && p.indexAt(place));
    linked.forEach((p) => p.mark(...p.cellsAt(place), "same"));
    return linked;
  }

  /* One number of a part that is seen closer: its cell in the other panels. */
  follow(panel, at, value) {
    if (this.pinned) return;
    const all = this.allPanels();
    all.forEach((p) => p.clear());
    const place = placeAt(panel.data.walk, at[0] * panel.data.shape[1] + at[1]);
    this.say(this.journey(panel, at, this.link(panel, place, all), place, value));
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
    const value = number(panel.values[i]);
    if (place >= 0 && panel.data.group !== "output") {
      const at = panel.data.pooled ? panel.indexAt(place) : [row, column];
      return this.journey(panel, at, linked, place, panel.values[i]);
    }
    if (panel.data.pooled) {
      const [h, w] = panel.data.block;
      return `${panel.data.symbol}[${row * h}:${Math.min((row + 1) * h, panel.data.shape[0])}, ${column * w}:${Math.min((column + 1) * w, panel.data.shape[1])}]: largest ${value}`;
    }
    if (panel.data.group !== "output") return `${this.element(panel, [row, column])} = ${value}`;
    return [panel, ...peers].map((p) => `${this.element(p, [row, column])} = ${number(p.values[i])}`).join("  ·  ");
  }

  element(panel, at) {
    return panel.group.strip ? "" : `${panel.data.symbol}[${indexOf(panel.data, ...at).join(", ")}]`;
  }

  /* One number through the file and every leaf that holds it. */
  journey(panel, at, linked, place, value) {
    const names = (group) => [panel, ...linked].filter((p) => p.data.group === group && !p.group.strip)
      .map((p) => this.element(p, p === panel ? at : p.indexAt(place)));
    const leaf = names("leaf").reverse();
    return `${[...names("file"), `flat[${place}]`].join(" = ")}${leaf.length ? " → " : ""}${leaf.join(" and ")} = ${number(value)}`;
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
    const fold = element.closest(".pl-tab")?.querySelector(".pl-fold > button.label-wrap.open");
    if (fold && matchMedia("(max-width: 800px)").matches) fold.click();
    const draw = () => lens.update(props.value ? JSON.parse(props.value) : null);
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
