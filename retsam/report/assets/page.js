/* What every figure shares: the state of the association plots, controls under a figure, and the page's own behaviour. */
const builders = {};
const tables = {};

/* ---------- one state for all association plots ---------- */
const shared = {
  listeners: [],
  on(f) { this.listeners.push(f); f(); },
  change(patch) { Object.assign(this.state, patch); this.listeners.forEach((f) => f()); },
  init() {
    const bar = document.getElementById("association-bar");
    if (!bar) return;
    const block = dataBlock("associations");
    this.meta = block.meta;
    this.rows = rowsOf(block);
    this.state = { outcome: block.meta.outcomes[0].name, set: block.meta.primary, family: "", query: "", chosen: null };
    const pick = (key, label, options) => {
      const select = el("select", { onchange: (e) => this.change({ [key]: e.target.value }), "data-filter": key }, options.map(([v, t]) => el("option", { value: v }, t)));
      select.value = this.state[key];
      return el("label", {}, [label, select]);
    };
    this.chosenNote = el("button", { type: "button", class: "chosen-note", hidden: true, onclick: () => this.change({ chosen: null }) });
    bar.replaceChildren(
      pick("outcome", "Outcome", block.meta.outcomes.map((o) => [o.name, o.name])),
      pick("set", "Adjusted for", block.meta.sets.map((s) => [s.name, s.label])),
      pick("family", "Family", [["", "all families"], ...block.meta.families.map((f) => [f, f])]),
      el("label", {}, ["Name contains", el("input", { type: "search", size: "14", "data-filter": "query", oninput: (e) => this.change({ query: e.target.value.toLowerCase() }) })]),
      this.chosenNote);
    this.on(() => {
      const c = this.state.chosen;
      this.chosenNote.hidden = !c;
      this.chosenNote.textContent = c ? `${c} is marked \u2715` : "";
    });
  },
  outcome() { return this.meta.outcomes.find((o) => o.name === this.state.outcome); },
  /* Rows of the current outcome and covariate set; `filtered` are those that also pass family and name. */
  current() {
    const s = this.state, all = this.rows.filter((r) => r.outcome === s.outcome && r.set === s.set);
    const filtered = all.filter((r) => (!s.family || r.family === s.family) && (!s.query || r.biomarker.toLowerCase().includes(s.query)));
    return { all, filtered };
  },
  threshold(all) {
    const tests = all.find((r) => finite(r.tests))?.tests || all.filter((r) => finite(r.nlp)).length, alpha = this.meta.alpha;
    const passing = all.filter((r) => finite(r.nlq) && r.nlq >= -Math.log10(alpha) && finite(r.nlp)).map((r) => r.nlp);
    return { tests, bonferroni: tests ? -Math.log10(alpha / tests) : null, q: passing.length ? Math.min(...passing) : null };
  },
  familyIndex(f) { return Math.max(0, this.meta.families.indexOf(f)); },
};

const familyColor = (f) => color(shared.familyIndex(f));
const familyShape = (f) => SHAPES[shared.familyIndex(f) % SHAPES.length];

function estimateText(r, ratio, key = ["est", "lo", "hi"]) {
  const [e, l, h] = key.map((k) => r[k]);
  if (!finite(e)) return "\u2013";
  const one = (v) => (finite(v) ? (ratio ? fmtRatio(Math.exp(v)) : fmtNumber(v)) : "\u2013");
  return `${one(e)} (${one(l)} to ${one(h)})`;
}

function associationTip(r, o) {
  const d = shared.meta.dictionary[r.biomarker], lines = [r.biomarker];
  if (d && d.definition) lines.push(clipLabel(d.definition, 170));
  if (finite(r.est)) lines.push(`${o.measure} ${o.per} ${estimateText(r, o.ratio)}`, `p = ${fmtP(r.nlp)}, q = ${fmtP(r.nlq)}`);
  lines.push(`n = ${fmtCount(r.n)}` + (r.cases !== null && r.cases !== undefined ? `, cases ${fmtCount(r.cases)}` : "") + `, ${shared.meta.clusters} ${fmtCount(r.clusters)}`);
  if (d && d.direction) lines.push(d.direction);
  if (r.note) lines.push("Remarks: " + r.note);
  return lines;
}

/* The name with what must be seen beside it: a dagger where a head learned from analysed subjects, a double one where it is weak. */
const marked = (r) => r.biomarker + (r.mark ? " " + r.mark : "");

const choose = (name) => () => shared.change({ chosen: shared.state.chosen === name ? null : name });

/* ---------- controls under a figure ---------- */
function controls(figure, specs, onChange) {
  const box = figure.querySelector(".controls"), state = {};
  const nodes = {};
  for (const c of specs) {
    const select = el("select", { "data-filter": c.key, onchange: (e) => { state[c.key] = e.target.value; onChange(state, c.key); } });
    nodes[c.key] = select;
    state[c.key] = c.options[0] && c.options[0][0];
    select.replaceChildren(...c.options.map(([v, t]) => el("option", { value: v }, t)));
    box.append(el("label", {}, [c.label, select]));
  }
  return {
    state,
    options(key, options) {
      const keep = options.some(([v]) => v === state[key]) ? state[key] : options[0] && options[0][0];
      nodes[key].replaceChildren(...options.map(([v, t]) => el("option", { value: v }, t)));
      state[key] = keep;
      if (keep !== undefined) nodes[key].value = keep;
    },
  };
}

const distinct = (rows, key) => [...new Set(rows.map((r) => r[key]))].filter((v) => v !== null && v !== undefined);
const asOptions = (values) => values.map((v) => [String(v), String(v)]);

/* Zoom and download buttons; `csv` gives [header, rows] of what is drawn now. */
function toolbar(figure, plot, csv) {
  const name = figure.dataset.name, bar = el("div", { class: "tools" });
  const button = (label, title, f) => el("button", { type: "button", title, "aria-label": title, onclick: f }, label);
  if (plot.scaleBy) bar.append(button("+", "Zoom in", () => plot.scaleBy(0.75)), button("\u2212", "Zoom out", () => plot.scaleBy(1.333)), button("Reset", "Reset zoom", () => plot.reset()));
  bar.append(button("SVG", "Download this figure as SVG", () => exportSvg(plot.svgNode(), name + ".svg")));
  if (csv) bar.append(button("CSV", "Download the data of this figure as CSV", () => { const [h, r] = csv(); download(name + ".csv", "text/csv", toCsv(h, r)); }));
  figure.insertBefore(bar, figure.querySelector("figcaption"));
}

/* ---------- the page ---------- */
function theme() {
  const root = document.documentElement, button = document.getElementById("theme");
  button.addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    window.dispatchEvent(new Event("themechange"));
  });
}

function navigation() {
  const links = new Map([...document.querySelectorAll("nav a[href^='#']")].map((a) => [a.getAttribute("href").slice(1), a]));
  const seen = new Set();
  const watch = new IntersectionObserver((entries) => {
    for (const e of entries) e.isIntersecting ? seen.add(e.target.id) : seen.delete(e.target.id);
    let first = true;
    for (const [id, a] of links) {
      const here = first && seen.has(id);
      if (here) first = false;
      here ? a.setAttribute("aria-current", "true") : a.removeAttribute("aria-current");
    }
  }, { rootMargin: "-10% 0px -60% 0px" });
  document.querySelectorAll("main section[id]").forEach((s) => watch.observe(s));
  const menu = document.getElementById("menu"), nav = document.querySelector("nav");
  menu.addEventListener("click", () => { const open = nav.classList.toggle("open"); menu.setAttribute("aria-expanded", String(open)); });
  nav.addEventListener("click", (e) => { if (e.target.closest("a")) { nav.classList.remove("open"); menu.setAttribute("aria-expanded", "false"); } });
}

function gallery() {
  const box = document.getElementById("eyes");
  if (!box) return;
  const toggle = document.getElementById("gallery-masks");
  toggle.addEventListener("change", () => box.classList.toggle("plain", !toggle.checked));
  const dialog = document.getElementById("viewer"), inside = dialog.querySelector(".viewer-body");
  box.addEventListener("click", (e) => {
    const card = e.target.closest("button.eye");
    if (!card) return;
    const figures = [...card.querySelectorAll("img")].map((img) => el("img", { src: img.getAttribute("src"), alt: img.alt }));
    inside.replaceChildren(...figures, el("p", {}, card.querySelector(".eye-text").textContent));
    dialog.showModal();
  });
  dialog.addEventListener("click", (e) => { if (e.target === dialog || e.target.closest("button.close")) dialog.close(); });
}

function copyButtons() {
  document.querySelectorAll("button[data-copy]").forEach((b) => b.addEventListener("click", async () => {
    const text = document.getElementById(b.dataset.copy).innerText;
    try { await navigator.clipboard.writeText(text); b.textContent = "Copied"; } catch (error) {
      // A page opened from disk may not write to the clipboard: select the text, so that Ctrl-C does.
      const range = document.createRange();
      range.selectNodeContents(document.getElementById(b.dataset.copy));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      b.textContent = "Selected: press Ctrl+C";
    }
  }));
}

/* Paper cannot be clicked: what is folded is opened for printing, and each figure says what its controls chose. */
function printing() {
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")].filter((d) => !d.querySelector("pre"));
    opened.forEach((d) => { d.open = true; });
    for (const box of document.querySelectorAll(".controls, .bar")) {
      const said = [...box.querySelectorAll("select")].map((s) => `${s.parentNode.firstChild.textContent.trim()}: ${s.selectedOptions[0] ? s.selectedOptions[0].textContent : ""}`).join("; ");
      if (said) box.after(el("p", { class: "figure-note printed" }, said));
    }
  });
  window.addEventListener("afterprint", () => {
    opened.forEach((d) => { d.open = false; });
    document.querySelectorAll(".printed").forEach((p) => p.remove());
  });
}

function start() {
  theme();
  navigation();
  shared.init();
  for (const figure of document.querySelectorAll("figure.fig")) {
    const host = figure.querySelector(".host");
    host.replaceChildren();
    builders[figure.dataset.kind](figure, host, dataBlock(figure.dataset.block));
  }
  for (const node of document.querySelectorAll(".tab.data")) tables[node.dataset.kind](node, node.querySelector(".host"), dataBlock(node.dataset.block));
  for (const table of document.querySelectorAll("table[data-sortable]")) {
    sortable(table);
    const tab = table.closest(".tab");
    if (tab) tab.append(el("div", { class: "tools" }, el("button", { type: "button", onclick: () => download(tab.dataset.name + ".csv", "text/csv", tableCsv(table)) }, "Download CSV")));
  }
  gallery();
  copyButtons();
  printing();
  document.documentElement.dataset.ready = "true";
}

document.addEventListener("DOMContentLoaded", start);
