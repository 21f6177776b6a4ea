/* Tables: small ones come as HTML and get sorting; large ones come as data and get filter, sort and pages. */
function sortValue(text) {
  const t = text.replace(/[\u202f\s]/g, "").replace(/\u2212/g, "-").replace("<", "");
  const m = t.match(/^-?[\d.]+(?:\u00d710([\u207b\u2070-\u2079\u00b9\u00b2\u00b3]+))?/);
  if (!m) return text.toLowerCase();
  let v = parseFloat(t);
  if (m[1]) { const inverse = Object.fromEntries(Object.entries(SUPERSCRIPT).map(([k, s]) => [s, k])); v *= 10 ** Number([...m[1]].map((c) => inverse[c]).join("")); }
  return Number.isNaN(v) ? text.toLowerCase() : v;
}

function compare(a, b) {
  if (a === null || a === undefined || a === "") return b === null || b === undefined || b === "" ? 0 : 1;
  if (b === null || b === undefined || b === "") return -1;
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function headerCell(label, title, onSort) {
  const button = el("button", { type: "button", class: "sort", onclick: onSort, title: title || null }, [label, el("span", { class: "arrow", "aria-hidden": "true" })]);
  return el("th", { scope: "col", "aria-sort": "none" }, button);
}

function sortable(table) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells], body = table.tBodies[0];
  const original = [...body.rows];
  heads.forEach((th, i) => {
    const label = th.textContent;
    const fresh = headerCell(label, th.title, () => {
      const next = fresh.getAttribute("aria-sort") === "ascending" ? "descending" : fresh.getAttribute("aria-sort") === "descending" ? "none" : "ascending";
      table.querySelectorAll("th[aria-sort]").forEach((t) => t.setAttribute("aria-sort", "none"));
      fresh.setAttribute("aria-sort", next);
      const rows = next === "none" ? original : [...original].sort((r, q) => compare(sortValue(r.cells[i].textContent), sortValue(q.cells[i].textContent)) * (next === "ascending" ? 1 : -1));
      body.replaceChildren(...rows);
    });
    fresh.className = th.className;
    th.replaceWith(fresh);
  });
}

function tableCsv(table) {
  const text = (c) => c.textContent.replace(/\u2212/g, "-").replace(/\u202f/g, "").trim();
  const rows = [...table.rows].map((r) => [...r.cells].map(text));
  return toCsv(rows[0], rows.slice(1));
}

/* columns: [{key, label, title, num, text: (row) => string, value: (row) => sort value}] */
class DataTable {
  constructor(host, columns, options = {}) {
    this.host = host;
    this.columns = columns;
    this.size = options.size || 25;
    this.onRow = options.onRow;
    this.name = options.name || "table";
    this.sort = options.sort || null;
    this.page = 0;
    this.query = "";
    this.rows = [];
    const search = el("input", { type: "search", "aria-label": "Filter rows of this table", oninput: (e) => { this.query = e.target.value.toLowerCase(); this.page = 0; this.render(); } });
    this.count = el("span", { class: "count", "aria-live": "polite" });
    const save = el("button", { type: "button", onclick: () => this.save() }, "Download CSV");
    this.heads = columns.map((c, i) => { const th = headerCell(c.label, c.title, () => this.by(i)); if (c.num) th.className = "num"; return th; });
    this.body = el("tbody");
    this.pager = el("div", { class: "pager" });
    host.replaceChildren(el("div", { class: "tools" }, [el("label", {}, ["Filter rows ", search]), this.count, save]), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": options.label || this.name }, el("table", {}, [el("thead", {}, el("tr", {}, this.heads)), this.body])), this.pager);
  }

  set(rows) { this.rows = rows; this.page = 0; this.render(); }

  by(i) {
    const same = this.sort && this.sort.i === i;
    this.sort = { i, dir: same ? -this.sort.dir : 1 };
    this.page = 0;
    this.render();
  }

  visible() {
    let rows = this.rows;
    if (this.query) rows = rows.filter((r) => this.columns.some((c) => String(c.text(r)).toLowerCase().includes(this.query)));
    if (this.sort) { const c = this.columns[this.sort.i], d = this.sort.dir; rows = [...rows].sort((a, b) => { const p = c.value(a), q = c.value(b); const empty = (v) => v === null || v === undefined; return empty(p) || empty(q) ? compare(p, q) : compare(p, q) * d; }); }
    return rows;
  }

  render() {
    const rows = this.visible(), pages = Math.max(1, Math.ceil(rows.length / this.size));
    this.page = Math.min(this.page, pages - 1);
    this.heads.forEach((th, i) => th.setAttribute("aria-sort", this.sort && this.sort.i === i ? (this.sort.dir > 0 ? "ascending" : "descending") : "none"));
    this.body.replaceChildren(...rows.slice(this.page * this.size, (this.page + 1) * this.size).map((r) => {
      const tr = el("tr", {}, this.columns.map((c) => el("td", { class: c.num ? "num" : c.cls || null }, String(c.text(r)))));
      if (this.onRow) { tr.classList.add("pick"); tr.addEventListener("click", () => this.onRow(r)); }
      return tr;
    }));
    this.count.textContent = rows.length === this.rows.length ? `${fmtCount(rows.length)} rows` : `${fmtCount(rows.length)} of ${fmtCount(this.rows.length)} rows`;
    const go = (p) => () => { this.page = p; this.render(); };
    this.pager.replaceChildren(...(pages > 1 ? [
      el("button", { type: "button", disabled: this.page === 0, onclick: go(this.page - 1) }, "Previous"),
      el("span", {}, `Page ${this.page + 1} of ${pages}`),
      el("button", { type: "button", disabled: this.page >= pages - 1, onclick: go(this.page + 1) }, "Next"),
    ] : []));
  }

  save() {
    download(this.name + ".csv", "text/csv", toCsv(this.columns.map((c) => c.key), this.visible().map((r) => this.columns.map((c) => (c.raw ? c.raw(r) : c.value(r))))));
  }
}
