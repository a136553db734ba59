/* A table of rows to choose from; as a tree, its rows stand under the modules that they name. */

import { el } from "./page.js";

const SEARCHABLE = 14;
const MOST_ROWS = 400;
const ALL_OPEN = 32;  // a tree of so many rows is not folded
const SVG = "http://www.w3.org/2000/svg";

export class Table {
  constructor(lens) {
    this.lens = lens;
    this.opened = new Map();
    this.node = el("section", "pl-block");
    this.head = el("header", "pl-block-head");
    this.title = el("h3");
    this.only = el("label", "pl-only");
    this.check = el("input");
    this.check.type = "checkbox";
    this.check.addEventListener("change", () => this.fill());
    this.only.append(this.check, el("span", "", "Only what is not right"));
    this.search = el("input", "pl-search");
    this.search.type = "search";
    this.search.placeholder = "Filter";
    this.search.setAttribute("aria-label", "Filter the rows");
    this.search.addEventListener("input", () => this.fill());
    this.head.append(this.title, this.only, this.search);
    this.scroll = el("div", "pl-scroll");
    this.table = el("table", "pl-table");
    this.note = el("p", "pl-note");
    this.scroll.append(this.table);
    this.node.append(this.head, this.scroll, this.note);
  }

  update(block) {
    this.block = block;
    this.title.textContent = block.title;
    this.scroll.classList.toggle("pl-short", Boolean(block.short));
    this.table.classList.toggle("pl-tree", Boolean(block.tree));
    this.only.hidden = !block.rows.some(isOdd);
    if (this.only.hidden) this.check.checked = false;
    this.search.hidden = block.rows.length < SEARCHABLE;
    if (this.search.hidden) this.search.value = "";
    this.fill();
  }

  /* The rows that the box and the search leave. */
  rows() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (r) => r.cells.map((c) => (typeof c === "string" ? c : `${c.text} ${c.below || ""}`)).join(" ").toLowerCase();
    return this.block.rows.filter((r) => (!this.check.checked || isOdd(r)) && words.every((w) => text(r).includes(w)));
  }

  fill() {
    const kept = this.rows();
    const folded = this.block.tree && kept.length === this.block.rows.length;
    const lines = folded ? this.branches(kept) : kept.map((r) => () => this.line(r));
    const thead = el("thead"), tbody = el("tbody"), head = el("tr");
    head.append(...this.block.columns.map((c, i) => el("th", this.summed(i), c)));
    thead.append(head);
    tbody.append(...lines.slice(0, MOST_ROWS).map((draw) => draw()));
    this.table.replaceChildren(thead, tbody);
    const more = lines.length - MOST_ROWS;
    this.note.textContent = [more > 0 && `${more.toLocaleString("en")} more rows: filter to see them.`, this.block.note].filter(Boolean).join(" ");
  }

  /* One row; in a tree, under its module, `name` is what is left of its key. */
  line(row, name = "", depth = 0) {
    const { selected, event, mono } = this.block;
    const line = el("tr", row.key === "total" ? "pl-total" : selected && row.key === selected ? "pl-selected" : "");
    line.append(...row.cells.map((content, i) =>
      this.cell(i || !name ? content : named(content, name), mono, i ? 0 : depth, this.summed(i))));
    if (!event || !row.key || row.key === "total") return line;
    line.dataset.key = row.key;
    line.setAttribute("aria-selected", String(row.key === selected));
    return pressed(line, () => this.lens.trigger(event, { table: this.block.id, key: row.key }));
  }

  summed(column) { return (this.block.sums || []).includes(column) ? "pl-number" : ""; }

  cell(content, mono, depth, className = "") {
    const { text, status, below, bars } = typeof content === "string" ? { text: content } : content;
    const cell = el("td", status || !mono ? className : `pl-mono ${className}`);
    if (depth) cell.style.paddingLeft = `${8 + 16 * depth}px`;
    if (bars) cell.append(drawBars(bars));
    else cell.append(lined(el("span", status ? `pl-status pl-status-${status}` : ""), text, this.block.tree));
    if (below) cell.append(el("span", "pl-below", below));
    return cell;
  }

  /* The lines of a tree, each as a function that draws it: modules, and the rows of open ones. */
  branches(rows) {
    const root = treeOf(rows);
    const lines = [];
    const walk = (node, path, depth) => {
      for (const child of node.children) {
        if (child.row) { lines.push(() => this.line(child.row, child.name, depth)); continue; }
        const at = `${path}/${child.name}`;
        const open = this.opened.get(at) ?? this.startsOpen(child, rows.length);
        lines.push(() => this.branch(child, at, open, depth));
        if (open) walk(child, at, depth + 1);
      }
    };
    walk(root, "", 0);
    return lines;
  }

  /* Numbered layers of a long tree start folded, but for the one that is looked at. */
  startsOpen(node, total) {
    const holds = (n) => (n.row ? n.row.key === this.block.selected : n.children.some(holds));
    const counted = node.name.split(/[./]/).some((part) => /(^|_)\d+$/.test(part));
    return total <= ALL_OPEN || !counted || holds(node);
  }

  branch(node, path, open, depth) {
    const all = rowsOf(node);
    const line = el("tr", "pl-branch");
    line.setAttribute("aria-expanded", String(open));
    const odd = all.filter(isOdd);
    line.append(...this.block.columns.map((_, i) => {
      if (i === 0) {
        const cell = this.cell({ text: `${open ? "▾" : "▸"} ${node.name}` }, true, depth);
        cell.append(odd.length
          ? el("span", `pl-status pl-status-${worst(odd)}`, `${odd.length} of ${all.length}`)
          : el("span", "pl-count", `(${all.length.toLocaleString("en")})`));
        return cell;
      }
      if (!this.summed(i)) return el("td");
      const sum = all.reduce((n, r) => n + Number(r.cells[i].replaceAll(",", "")), 0);
      return this.cell(sum.toLocaleString("en"), true, 0, "pl-number");
    }));
    return pressed(line, () => { this.opened.set(path, !open); this.fill(); });
  }

  draw() {}
  dispose() { this.node.remove(); }
}

const isOdd = (row) => Boolean(row.status) && row.status !== "ok";
const worst = (rows) => ["wrong", "unsure", "open"].find((status) => rows.some((r) => r.status === status));
const named = (content, text) => (typeof content === "string" ? text : { ...content, text });
const rowsOf = (node) => (node.row ? [node.row] : node.children.flatMap(rowsOf));

/* In a tree a long key may break behind a dot or a slash, and nowhere else. */
const lined = (node, text, breaks) => {
  const parts = breaks ? text.split(/(?<=[./])/) : [text];
  parts.forEach((part, i) => { if (i) node.append(el("wbr")); node.append(part); });
  return node;
};

const pressed = (line, act) => {
  line.tabIndex = 0;
  line.addEventListener("click", act);
  line.addEventListener("keydown", (e) => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); act(); } });
  return line;
};

/* Rows under the modules of their keys; a module that holds one thing only is written with it. */
const treeOf = (rows) => {
  const root = { name: "", children: [], at: new Map() };
  for (const row of rows) {
    const path = row.at ?? row.key;
    const between = path.includes("/") ? "/" : ".";
    const parts = path.split(between);
    const name = parts.pop();
    let node = root;
    for (const part of parts) {
      if (!node.at.has(part)) {
        const child = { name: part, between, children: [], at: new Map() };
        node.at.set(part, child);
        node.children.push(child);
      }
      node = node.at.get(part);
    }
    node.children.push({ name, row });
  }
  const joined = (node) => {
    node.children = node.children.map((c) => (c.row ? c : joined(c)));
    const [only] = node.children;
    return node.children.length > 1 ? node : { ...only, name: `${node.name}${node.between}${only.name}` };
  };
  root.children = root.children.map((c) => (c.row ? c : joined(c)));
  return root;
};

const drawBars = (heights) => {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "pl-bars");
  svg.setAttribute("viewBox", `0 0 ${heights.length} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", heights.map((h, i) => `M${i} 100v${-h}h0.85v${h}z`).join(""));
  svg.append(path);
  return svg;
};
