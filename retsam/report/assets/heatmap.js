/* Correlation matrix with its clustering tree: canvas for the cells (there are tens of thousands), SVG when saved. */
class HeatMap {
  constructor(figure, host) {
    this.figure = figure;
    this.host = host;
    this.view = null;
    this.cursor = null;
    host.classList.add("plot");
    onWidth(host, (w) => { this.width = w; this.draw(); });
  }

  /* spec: {label, names: [..], labels: [..], values: flat row-major integers of 100 r (null where undefined), n: flat pair counts or null, tree: [[x0, x1, height0, height1, height]...], keep: indices shown, cells: minimum count note} */
  set(spec) { this.spec = spec; this.view = null; this.draw(); }

  value(i, j) { const s = this.spec, k = s.keep; return s.values[k[i] * s.labels.length + k[j]]; }

  static shade(v, dark) {
    // Blue through paper to vermillion: stays apart for protan, deutan and tritan readers; lightness carries the size.
    if (v === null || v === undefined) return dark ? "#3a3f45" : "#d8d8d4";
    const t = Math.min(1, Math.abs(v) / 100) ** 0.8, end = v < 0 ? [0, 82, 155] : [190, 72, 0], mid = dark ? [30, 33, 37] : [250, 249, 246];
    return `rgb(${end.map((e, i) => Math.round(mid[i] + (e - mid[i]) * t)).join(",")})`;
  }

  layout() {
    const n = this.spec.keep.length, W = this.width;
    const view = this.view || { i: 0, j: 0, n };
    const longest = Math.max(...this.spec.keep.map((k) => this.spec.labels[k].length)), labelRoom = W < 520 ? 8 : Math.min(W * 0.3, Math.max(60, 14 + 6.1 * Math.min(longest, 44))), tree = this.view || !this.spec.tree || this.spec.keep.length < this.spec.labels.length ? 0 : 44;
    const cell = Math.max(1, Math.min(26, (W - labelRoom - 4) / view.n));
    return { n, view, labelRoom, tree, cell, size: cell * view.n, top: 4 + tree };
  }

  draw() {
    if (!this.spec || !this.width) return;
    const g = this.layout(), dark = document.documentElement.dataset.theme === "dark" || (document.documentElement.dataset.theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
    const names = g.cell >= 8.5 && g.labelRoom > 20, under = g.cell >= 8.5 ? 150 : 8;
    const W = this.width, H = g.top + g.size + under + 30, ratio = window.devicePixelRatio || 1;
    const canvas = el("canvas", { width: W * ratio, height: H * ratio, role: "img", tabindex: "0", "aria-label": this.spec.label + ". Arrow keys move the cell, plus and minus zoom.", style: { width: W + "px", height: H + "px" } });
    const c = canvas.getContext("2d");
    c.scale(ratio, ratio);
    const ink = getComputedStyle(document.body).color;
    this.paint({
      rect: (x, y, w, h, fill) => { c.fillStyle = fill; c.fillRect(x, y, w, h); },
      line: (points) => { c.strokeStyle = ink; c.globalAlpha = 0.55; c.lineWidth = 0.8; c.beginPath(); points.forEach(([x, y], i) => (i ? c.lineTo(x, y) : c.moveTo(x, y))); c.stroke(); c.globalAlpha = 1; },
      text: (x, y, text, turn, anchor) => { c.save(); c.translate(x, y); if (turn) c.rotate(turn); c.fillStyle = ink; c.font = `${Math.min(11, Math.max(8, g.cell - 1))}px system-ui, sans-serif`; c.textAlign = anchor; c.textBaseline = "middle"; c.fillText(text, 0, 0); c.restore(); },
    }, g, names, dark);
    this.canvas = canvas;
    this.cross = el("div", { class: "cellmark", style: { display: "none" } });
    const wrap = el("div", { class: "heat" }, [canvas, this.cross]);
    this.host.replaceChildren(wrap);
    this.listen(canvas, g);
  }

  paint(to, g, names, dark) {
    const s = this.spec, size = g.cell;
    for (let a = 0; a < g.view.n; a++) for (let b = 0; b < g.view.n; b++) to.rect(b * size, g.top + a * size, size + 0.4, size + 0.4, HeatMap.shade(this.value(g.view.i + a, g.view.j + b), dark));
    if (g.tree) for (const [x0, x1, h0, h1, h] of s.tree) {
      const px = (v) => (v + 0.5) * size, py = (v) => g.top - 3 - v * (g.tree - 5);
      to.line([[px(x0), py(h0)], [px(x0), py(h)], [px(x1), py(h)], [px(x1), py(h1)]]);
    }
    if (names) for (let a = 0; a < g.view.n; a++) to.text(g.size + 5, g.top + (a + 0.5) * size, clipLabel(s.labels[s.keep[g.view.i + a]], g.labelRoom > 20 ? Math.floor((g.labelRoom - 8) / 6) : 26), 0, "left");
    if (g.cell >= 8.5) for (let b = 0; b < g.view.n; b++) to.text((b + 0.5) * size, g.top + g.size + 5, clipLabel(s.labels[s.keep[g.view.j + b]], 22), Math.PI / 2, "left");
    const y0 = g.top + g.size + (g.cell >= 8.5 ? 154 : 12), w = Math.min(200, this.width - 80);
    for (let k = 0; k < 40; k++) to.rect(26 + (k * w) / 40, y0, w / 40 + 0.5, 9, HeatMap.shade(-100 + (200 * (k + 0.5)) / 40, dark));
    to.text(22, y0 + 5, "\u22121", 0, "right");
    to.text(30 + w, y0 + 5, "+1  Spearman r", 0, "left");
  }

  at(e, g) {
    const r = this.canvas.getBoundingClientRect(), j = Math.floor((e.clientX - r.left) / g.cell), i = Math.floor((e.clientY - r.top - g.top) / g.cell);
    return i >= 0 && j >= 0 && i < g.view.n && j < g.view.n ? [g.view.i + i, g.view.j + j] : null;
  }

  mark(cell, g, speak) {
    if (!cell) { this.cross.style.display = "none"; tip.hide(); return; }
    const [i, j] = cell, s = this.spec, v = this.value(i, j), x = (j - g.view.j) * g.cell, y = g.top + (i - g.view.i) * g.cell;
    Object.assign(this.cross.style, { display: "block", left: x - 1 + "px", top: y - 1 + "px", width: g.cell + "px", height: g.cell + "px" });
    const r = this.canvas.getBoundingClientRect();
    tip.show([s.labels[s.keep[i]], "with " + s.labels[s.keep[j]], v === null || v === undefined ? "too few pairs" : "r = " + minus((v / 100).toFixed(2))], r.left + x + g.cell, r.top + y, speak);
  }

  listen(canvas, g) {
    let start = null;
    canvas.addEventListener("pointermove", (e) => this.mark(this.at(e, g), g, false));
    canvas.addEventListener("pointerleave", () => this.mark(null, g));
    canvas.addEventListener("pointerdown", (e) => { start = this.at(e, g); });
    canvas.addEventListener("pointerup", (e) => {
      const end = this.at(e, g);
      if (start && end && (Math.abs(start[0] - end[0]) > 2 || Math.abs(start[1] - end[1]) > 2)) {
        const n = Math.max(Math.abs(start[0] - end[0]), Math.abs(start[1] - end[1])) + 1;
        this.show(Math.min(start[0], end[0]), Math.min(start[1], end[1]), n);
      } else if (end) { this.cursor = end; this.mark(end, g, true); }
      start = null;
    });
    canvas.addEventListener("dblclick", () => this.reset());
    canvas.addEventListener("keydown", (e) => {
      const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[e.key];
      if (move) {
        const c = this.cursor || [g.view.i, g.view.j - 1];
        this.cursor = [0, 1].map((k) => Math.min(g.view[k ? "j" : "i"] + g.view.n - 1, Math.max(g.view[k ? "j" : "i"], c[k] + move[k])));
        this.mark(this.cursor, g, true);
      } else if (e.key === "+" || e.key === "=") this.scaleBy(0.7);
      else if (e.key === "-") this.scaleBy(1.43);
      else if (e.key === "0") this.reset();
      else if (e.key === "Escape") this.mark(null, g);
      else return;
      e.preventDefault();
    });
    canvas.addEventListener("blur", () => this.mark(null, g));
  }

  show(i, j, n) {
    const all = this.spec.keep.length, size = Math.max(4, Math.min(all, n));
    this.view = size >= all ? null : { i: Math.max(0, Math.min(i, all - size)), j: Math.max(0, Math.min(j, all - size)), n: size };
    this.draw();
    this.canvas.focus({ preventScroll: true });
  }

  scaleBy(k) {
    const g = this.layout(), n = Math.round(g.view.n * k), c = this.cursor || [g.view.i + g.view.n / 2, g.view.j + g.view.n / 2];
    this.show(Math.round(c[0] - n / 2), Math.round(c[1] - n / 2), n);
  }

  reset() { this.view = null; this.draw(); }

  svgNode() {
    const g = this.layout(), H = g.top + g.size + 190, root = svg("svg", { viewBox: `0 0 ${this.width + 160} ${H}`, width: this.width + 160, height: H });
    this.paint({
      rect: (x, y, w, h, fill) => root.append(svg("rect", { x: x.toFixed(1), y: y.toFixed(1), width: w.toFixed(2), height: h.toFixed(2), style: `fill:${fill}` })),
      line: (points) => root.append(svg("polyline", { points: points.map((p) => p.join(",")).join(" "), style: "fill:none;stroke:#666;stroke-width:0.8" })),
      text: (x, y, text, turn, anchor) => root.append(svg("text", { transform: `translate(${x},${y}) rotate(${(turn * 180) / Math.PI})`, "text-anchor": anchor === "right" ? "end" : "start", "dominant-baseline": "central", style: "font-size:9px;fill:currentColor" }, text)),
    }, g, g.cell >= 8.5, false);
    const holder = el("div", { style: { position: "absolute", left: "-9999px" } }, root);
    document.body.append(holder);
    setTimeout(() => holder.remove(), 1000);
    return root;
  }
}
