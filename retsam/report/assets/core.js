/* Shared helpers of the report: elements, scales, number formats, tooltip, downloads. No framework, no network. */
const SVG_NS = "http://www.w3.org/2000/svg";

function el(name, attrs = {}, children = []) {
  const node = document.createElement(name);
  setAttrs(node, attrs);
  for (const child of [].concat(children)) if (child !== null && child !== undefined) node.append(child);
  return node;
}

function svg(name, attrs = {}, children = []) {
  const node = document.createElementNS(SVG_NS, name);
  setAttrs(node, attrs);
  // Text from the data only ever enters as a text node, so that it can never become markup.
  for (const child of [].concat(children)) if (child !== null && child !== undefined) node.append(child);
  return node;
}

function setAttrs(node, attrs) {
  for (const [key, value] of Object.entries(attrs)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style" && typeof value === "object") Object.assign(node.style, value);
    else node.setAttribute(key, value === true ? "" : value);
  }
}

const finite = (v) => v !== null && v !== undefined && Number.isFinite(v);

/* ---------- numbers ---------- */
const SUPERSCRIPT = { "-": "\u207b", 0: "\u2070", 1: "\u00b9", 2: "\u00b2", 3: "\u00b3", 4: "\u2074", 5: "\u2075", 6: "\u2076", 7: "\u2077", 8: "\u2078", 9: "\u2079" };
const minus = (s) => String(s).replace(/-/g, "\u2212");

function fmtNumber(v, digits = 3) {
  if (!finite(v)) return "\u2013";
  if (v === 0) return "0";
  const a = Math.abs(v);
  if (a >= 1e5 || a < 1e-3) {
    const [m, e] = v.toExponential(1).split("e");
    return minus(m.replace(/\.0$/, "")) + "\u00d710" + String(Number(e)).split("").map((c) => SUPERSCRIPT[c]).join("");
  }
  if (a >= 1000) return minus(Math.round(v).toLocaleString("en").replace(/,/g, "\u202f"));
  return minus(Number(v.toPrecision(digits)).toString());
}

/* p from its -log10, because very small p underflow as numbers. */
function fmtP(nlp) {
  if (!finite(nlp)) return "\u2013";
  if (nlp < 3) { const p = 10 ** -nlp; return p >= 0.995 ? "1.00" : p.toFixed(p < 0.1 ? 3 : 2); }
  let e = Math.ceil(nlp), m = 10 ** (e - nlp);
  if (m.toFixed(1) === "10.0") { m = 1; e -= 1; }
  return m.toFixed(1) + "\u00d710" + ("-" + e).split("").map((c) => SUPERSCRIPT[c]).join("");
}

function fmtRatio(v) {
  if (v === Infinity) return "\u221e";
  if (!finite(v)) return "\u2013";
  if (v >= 100 || v < 0.01) return fmtNumber(v, 3);
  return minus(v.toFixed(2));
}

const ratioTick = (t) => fmtRatio(Math.exp(t)).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");

/* "n = 120, cases 30", or that the counts are too small to be shown. */
function countsText(r) {
  if (!finite(r.n)) return "counts not shown";
  return `n = ${fmtCount(r.n)}` + (finite(r.cases) ? `, cases ${fmtCount(r.cases)}` : "");
}

function fmtCount(v) {
  if (typeof v === "string") return v; // a suppressed cell such as "<5"
  return finite(v) ? Math.round(v).toLocaleString("en").replace(/,/g, "\u202f") : "\u2013";
}

/* ---------- scales ---------- */
function linearTicks(lo, hi, count) {
  const span = hi - lo;
  if (!(span > 0)) return [lo];
  const raw = span / Math.max(1, count);
  const mag = 10 ** Math.floor(Math.log10(raw));
  const steps = [0.2, 0.25, 0.5, 1, 2, 2.5, 5, 10].map((m) => m * mag);
  const ticksAt = (step) => {
    const ticks = [];
    for (let t = Math.ceil(lo / step - 1e-9) * step; t <= hi + step * 1e-9; t += step) ticks.push(Math.abs(t) < step * 1e-9 ? 0 : t);
    return ticks;
  };
  let at = steps.findIndex((s) => s >= raw * 0.999), ticks = ticksAt(steps[at]);
  while (ticks.length < 2 && at > 0) ticks = ticksAt(steps[--at]); // an axis with a single tick has no scale
  return ticks;
}

function logTicks(lo, hi, count) {
  // Domain and ticks are natural logs; the labels are the ratios themselves.
  const decades = (hi - lo) / Math.LN10;
  if (decades > count) {
    const step = Math.ceil(decades / count) * Math.LN10, ticks = [];
    for (let t = Math.ceil(lo / step) * step; t <= hi; t += step) ticks.push(Math.abs(t) < 1e-9 ? 0 : t);
    return ticks;
  }
  const sets = [
    [1, 10], [1, 3, 10], [1, 2, 5, 10], [1, 1.5, 2, 3, 5, 7, 10], [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10],
    [1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9, 9.5, 10],
  ];
  let best = [];
  for (const set of sets) {
    const ticks = new Set();
    for (let e = Math.floor(lo / Math.LN10) - 1; e <= Math.ceil(hi / Math.LN10); e++)
      for (const m of set) { const t = Math.log(m * 10 ** e); if (t >= lo - 1e-9 && t <= hi + 1e-9) ticks.add(Number(t.toFixed(9))); }
    const list = [...ticks].sort((a, b) => a - b);
    if (list.length > count + 1 && best.length >= 2) break;
    best = list;
    if (list.length >= count) break;
  }
  if (best.length < 2) {
    return linearTicks(Math.exp(lo), Math.exp(hi), count).filter((t) => t > 0).map(Math.log);
  }
  return best;
}

function scale(domain, range) {
  const [a, b] = domain, [c, d] = range, k = (d - c) / ((b - a) || 1);
  const f = (v) => c + (v - a) * k;
  f.invert = (p) => a + (p - c) / k;
  return f;
}

/* Range of the bulk of the values: a few that lie far out (nearly separated models) must not press all others together. */
function bulk(values) {
  const v = values.filter(finite).sort((a, b) => a - b);
  if (v.length < 8) return [-Infinity, Infinity];
  // Of a few, even one moves the outer quantiles.
  const [outer, times] = v.length < 40 ? [0.25, 3] : [0.03, 1.5];
  const at = (q) => v[Math.round(q * (v.length - 1))], room = Math.max(at(1 - outer) - at(outer), 1e-9) * times;
  return [at(outer) - room, at(1 - outer) + room];
}

function padDomain(values, pad = 0.05, include = []) {
  let lo = Infinity, hi = -Infinity;
  for (const v of values) if (finite(v)) { if (v < lo) lo = v; if (v > hi) hi = v; }
  for (const v of include) { lo = Math.min(lo, v); hi = Math.max(hi, v); }
  if (!Number.isFinite(lo)) return [0, 1];
  if (lo === hi) { lo -= 0.5; hi += 0.5; }
  const d = (hi - lo) * pad;
  return [lo - d, hi + d];
}

/* ---------- colours and shapes: Okabe-Ito, in an order that stays apart for colour-blind readers ---------- */
const color = (i) => `var(--c${(i % 8) + 1})`;
const SHAPES = ["circle", "square", "diamond", "triangle", "down", "cross"];

function shapePath(shape, x, y, r) {
  switch (shape) {
    case "square": { const s = r * 0.88; return `M${x - s},${y - s}h${2 * s}v${2 * s}h${-2 * s}Z`; }
    case "diamond": { const s = r * 1.25; return `M${x},${y - s}L${x + s},${y}L${x},${y + s}L${x - s},${y}Z`; }
    case "triangle": { const s = r * 1.15; return `M${x},${y - s}L${x + s},${y + s * 0.85}L${x - s},${y + s * 0.85}Z`; }
    case "down": { const s = r * 1.15; return `M${x},${y + s}L${x + s},${y - s * 0.85}L${x - s},${y - s * 0.85}Z`; }
    case "cross": { const s = r * 0.42, l = r * 1.2; return `M${x - s},${y - l}h${2 * s}v${l - s}h${l - s}v${2 * s}h${-(l - s)}v${l - s}h${-2 * s}v${-(l - s)}h${-(l - s)}v${-2 * s}h${l - s}Z`; }
    default: return `M${x - r},${y}a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0Z`;
  }
}

/* ---------- tooltip and live region ---------- */
const tip = {
  node: null,
  show(lines, x, y, speak = false) {
    if (!this.node) { this.node = el("div", { class: "tip", role: "presentation" }); document.body.append(this.node); }
    this.node.replaceChildren(...lines.map((line, i) => el("div", { class: i ? "" : "tip-title" }, line)));
    this.node.style.display = "block";
    const box = this.node.getBoundingClientRect();
    const left = Math.min(Math.max(8, x + 14), window.innerWidth - box.width - 8);
    const top = y + box.height + 24 > window.innerHeight ? Math.max(8, y - box.height - 12) : y + 16;
    this.node.style.left = left + "px";
    this.node.style.top = top + "px";
    if (speak) announce(lines.join(". "));
  },
  hide() { if (this.node) this.node.style.display = "none"; },
};

function announce(text) {
  const live = document.getElementById("live");
  if (live) live.textContent = text;
}

/* ---------- downloads ---------- */
function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const a = el("a", { href: url, download: name });
  document.body.append(a);
  a.click();
  a.remove();
  setTimeout(() => URL.revokeObjectURL(url), 4000);
}

/* A spreadsheet runs a cell that begins with = + - @ tab or CR, unless it is a plain number: a leading quote keeps it text. */
function csvCell(v) {
  if (v === null || v === undefined) return "";
  let s = String(v);
  if (/^[=+\-@\t\r]/.test(s) && !/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(s)) s = "'" + s;
  return /[",\n\r]/.test(s) ? '"' + s.replace(/"/g, '""') + '"' : s;
}

function toCsv(header, rows) {
  return [header, ...rows].map((r) => r.map(csvCell).join(",")).join("\r\n") + "\r\n";
}

const EXPORTED = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity", "fill-opacity", "opacity", "font-size", "font-weight", "font-style", "text-anchor", "dominant-baseline"];

/* The page's style sheet does not travel with a saved SVG, so each element carries its computed style. */
function exportSvg(source, name) {
  const copy = source.cloneNode(true);
  const from = [source, ...source.querySelectorAll("*")], to = [copy, ...copy.querySelectorAll("*")];
  from.forEach((node, i) => {
    const style = getComputedStyle(node);
    for (const key of EXPORTED) to[i].style.setProperty(key, style.getPropertyValue(key));
    to[i].removeAttribute("class");
    to[i].removeAttribute("tabindex");
  });
  const w = source.viewBox.baseVal.width, h = source.viewBox.baseVal.height;
  copy.setAttribute("xmlns", SVG_NS);
  copy.setAttribute("width", w);
  copy.setAttribute("height", h);
  copy.style.setProperty("font-family", "Helvetica, Arial, sans-serif");
  const paper = svg("rect", { width: w, height: h });
  paper.style.setProperty("fill", getComputedStyle(document.body).backgroundColor);
  copy.prepend(paper);
  download(name, "image/svg+xml", new XMLSerializer().serializeToString(copy));
}

/* ---------- data blocks ---------- */
const DATA = {};
function dataBlock(id) {
  if (!(id in DATA)) DATA[id] = JSON.parse(document.getElementById("data-" + id).textContent);
  return DATA[id];
}

/* Columns are sent as plain arrays, or as {levels, codes} where few values repeat. */
function rowsOf(block) {
  const names = Object.keys(block.columns);
  const out = [];
  for (let i = 0; i < block.length; i++) {
    const row = {};
    for (const name of names) {
      const c = block.columns[name];
      row[name] = Array.isArray(c) ? c[i] : c.codes[i] < 0 ? null : c.levels[c.codes[i]];
    }
    out.push(row);
  }
  return out;
}

/* Redraw on resize, but only when the width really changed (a redraw must not trigger itself). */
function onWidth(node, draw) {
  let last = 0, queued = false;
  new ResizeObserver(() => {
    const w = Math.floor(node.clientWidth);
    if (w === last || w === 0 || queued) return;
    queued = true;
    requestAnimationFrame(() => { queued = false; last = Math.floor(node.clientWidth); draw(last); });
  }).observe(node);
}

function clipLabel(text, max) {
  return text.length > max ? text.slice(0, Math.max(1, max - 1)) + "\u2026" : text;
}
