/* Small helpers of the page. Text is only ever set through textContent: tensor names are data. */

export const el = (tag, className = "", text = "") => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
};
export const button = (text, className, onClick) => {
  const node = el("button", className, text);
  node.type = "button";
  node.addEventListener("click", onClick);
  return node;
};
export const decode = (text, Type) =>
  new Type(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
export const token = (name) =>
  getComputedStyle(document.querySelector(".gradio-container") || document.body)
    .getPropertyValue(name).trim();
export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
export const number = (v) => {
  if (Number.isNaN(v)) return "NaN";
  if (!Number.isFinite(v)) return v > 0 ? "+∞" : "−∞";
  const size = Math.abs(v);
  const text = size && (size < 1e-3 || size >= 1e5) ? v.toExponential(2) : String(+v.toPrecision(4));
  return text.replace("-", "−");
};

export const copyText = async (text, node) => {
  const before = node.textContent;
  try { await navigator.clipboard.writeText(text); node.textContent = "Copied"; }
  catch { node.textContent = "Press Ctrl+C"; }
  setTimeout(() => { node.textContent = before; }, 1200);
};

/* The index of a cell along every axis of the array that a panel lays out (see grid.py). */
export const indexOf = (data, row, column) => {
  if (!data.grid) return [row, column];
  const { sizes, rows, columns } = data.grid;
  const index = sizes.map(() => 0);
  for (const [axes, start] of [[rows, row], [columns, column]]) {
    let rest = start;
    for (const axis of [...axes].reverse()) {
      index[axis] = rest % sizes[axis];
      rest = Math.floor(rest / sizes[axis]);
    }
  }
  return index;
};
