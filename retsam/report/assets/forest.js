/* Estimates with intervals, one row each: forest plots, subgroup panels, discrimination, measurement error. */
class ForestPlot {
  constructor(figure, host) {
    this.figure = figure;
    this.host = host;
    this.cursor = -1;
    this.zoom = 1;
    host.classList.add("plot");
    onWidth(host, (w) => { this.width = w; this.draw(); });
  }

  /* spec: {label, xLabel, log, ref, columns: [{label, width}], rows: [{heading} | {label, est, lo, hi, cells, color, shape, tip, choose, indent}], legend} */
  set(spec) {
    this.spec = spec;
    this.cursor = -1;
    this.zoom = 1;
    this.draw();
  }

  domain() {
    const s = this.spec, bounds = [];
    for (const r of s.rows) if (finite(r.est)) bounds.push([r.lo ?? r.est, r.hi ?? r.est, r.est]);
    if (!bounds.length) return [-1, 1];
    const [least, most] = bulk(bounds.map((b) => b[2])), ests = bounds.map((b) => Math.min(most, Math.max(least, b[2])));
    // One wild estimate or interval must not squeeze all others: bounds are clipped to a few times the spread of the estimates.
    const lo0 = Math.min(s.ref, ...ests), hi0 = Math.max(s.ref, ...ests), room = Math.max(hi0 - lo0, 1e-6);
    const sorted = bounds.map((b) => b[1] - b[0]).sort((a, b) => a - b), typical = sorted[Math.floor(sorted.length * 0.75)] || room;
    const reach = Math.max(room * 0.6, typical);
    let lo = Math.max(Math.min(s.ref, ...bounds.map((b) => b[0])), lo0 - reach), hi = Math.min(Math.max(s.ref, ...bounds.map((b) => b[1])), hi0 + reach);
    const pad = (hi - lo) * 0.04 || 0.1;
    lo -= pad; hi += pad;
    const mid = s.ref;
    return [mid + (lo - mid) * this.zoom, mid + (hi - mid) * this.zoom];
  }

  draw() {
    if (!this.spec || !this.width) return;
    const s = this.spec, W = this.width, narrow = W < 640;
    // A column is as wide as its longest text: a wide interval must not run into the plot.
    const columns = (s.columns || []).map((c, i) => ({ ...c, i, width: Math.max(c.width, 14 + 6.3 * Math.max(0, ...s.rows.map((r) => ((r.cells && r.cells[i]) || "").length))) })).filter((c) => c.label);
    const right = narrow ? 8 : columns.reduce((t, c) => t + c.width, 0) + 8;
    const longest = Math.max(8, ...s.rows.map((r) => (r.heading || r.label || "").length + (r.indent ? 2 : 0)));
    const left = narrow ? 8 : Math.min(W * 0.34, 16 + longest * 6.6);
    const rowH = narrow ? 46 : 25, headH = narrow ? 26 : 28, top = (narrow ? 8 : 30) + (s.legend && s.legend.length ? 20 : 0);
    const heights = s.rows.map((r) => (r.heading ? headH : rowH));
    const body = heights.reduce((a, b) => a + b, 0), H = top + body + 46;
    const dom = this.domain(), x = scale(dom, [left + 6, W - right - 6]);
    const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, width: W, height: H, role: "img", tabindex: "0", "aria-label": s.label + ". Arrow keys step through the rows, plus and minus zoom." });

    if (s.legend) {
      let at = 4;
      for (const e of s.legend) {
        if (at > 4 && at + 15 + e.label.length * 6.4 > W) break; // the tooltip of each row names its family too
        root.append(svg("path", { class: "point", d: shapePath(e.shape || "square", at + 5, 9, 4.5), style: `fill:${e.color}` }));
        root.append(svg("text", { class: "tick", x: at + 15, y: 9, "dominant-baseline": "central" }, e.label));
        at += 28 + e.label.length * 6.4;
      }
    }
    if (!narrow) {
      let at = W - right + 8;
      for (const c of columns) { root.append(svg("text", { class: "colhead", x: at + c.width - 8, y: top - 10, "text-anchor": "end" }, c.label)); at += c.width; }
    }
    const ticks = (s.log ? logTicks : linearTicks)(dom[0], dom[1], Math.max(2, Math.floor((W - left - right) / 64)));
    for (const t of ticks) {
      root.append(svg("line", { class: "grid", x1: x(t), x2: x(t), y1: top, y2: top + body }));
      root.append(svg("text", { class: "tick", x: x(t), y: top + body + 15, "text-anchor": "middle" }, s.log ? ratioTick(t) : fmtNumber(t)));
    }
    root.append(svg("line", { class: "axis", x1: left, x2: W - right, y1: top + body, y2: top + body }));
    if (s.ref >= dom[0] && s.ref <= dom[1]) root.append(svg("line", { class: "refsolid", x1: x(s.ref), x2: x(s.ref), y1: top, y2: top + body }));
    root.append(svg("text", { class: "label", x: (left + W - right) / 2, y: H - 8, "text-anchor": "middle" }, s.xLabel || ""));

    this.items = [];
    let yAt = top;
    s.rows.forEach((r, i) => {
      const h = heights[i], mid = narrow && !r.heading ? yAt + 33 : yAt + h / 2;
      if (r.heading) root.append(svg("text", { class: "rowhead", x: narrow ? 2 : 0, y: yAt + h - 9 }, clipLabel(r.heading, Math.floor(W / 7))));
      else {
        const shade = svg("rect", { class: "row", x: 0, y: yAt, width: W, height: h });
        root.append(shade);
        const indent = r.indent ? 14 : 0;
        if (narrow) {
          root.append(svg("text", { class: "rowlabel", x: 2 + indent, y: yAt + 12, "dominant-baseline": "central" }, clipLabel(r.label, Math.floor(W * 0.55 / 6.4))));
          if (r.cells && r.cells[0]) root.append(svg("text", { class: "cell", x: W - 4, y: yAt + 12, "text-anchor": "end", "dominant-baseline": "central" }, r.cells[0]));
        } else {
          root.append(svg("text", { class: "rowlabel", x: 2 + indent, y: mid, "dominant-baseline": "central" }, clipLabel(r.label, Math.floor((left - indent) / 6.3))));
          let at = W - right + 8;
          columns.forEach((c) => { root.append(svg("text", { class: "cell", x: at + c.width - 8, y: mid, "text-anchor": "end", "dominant-baseline": "central" }, (r.cells && r.cells[c.i]) || "")); at += c.width; });
        }
        if (finite(r.est)) this.interval(root, r, x, mid, dom);
        else root.append(svg("text", { class: "cell muted", x: narrow ? 2 + indent : left + 8, y: mid, "dominant-baseline": "central" }, clipLabel(absence(r), Math.floor((W - left - right) / 6))));
        const item = { r, i, mid, y: yAt, shade };
        this.items.push(item);
        shade.addEventListener("pointerenter", (e) => this.point(item, false, e));
        shade.addEventListener("pointermove", (e) => this.point(item, false, e));
        shade.addEventListener("pointerleave", () => this.point(null));
        shade.addEventListener("click", (e) => { this.point(item, true, e); if (r.choose) r.choose(); });
      }
      yAt += h;
    });
    root.addEventListener("keydown", (e) => {
      const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[e.key];
      if (step && this.items.length) { this.cursor = (this.cursor + step + this.items.length) % this.items.length; this.point(this.items[this.cursor], true); }
      else if (e.key === "Enter" && this.items[this.cursor] && this.items[this.cursor].r.choose) this.items[this.cursor].r.choose();
      else if (e.key === "+" || e.key === "=") this.scaleBy(0.8);
      else if (e.key === "-") this.scaleBy(1.25);
      else if (e.key === "0") this.reset();
      else if (e.key === "Escape") this.point(null);
      else return;
      e.preventDefault();
    });
    root.addEventListener("blur", () => this.point(null));
    const focused = this.root && document.activeElement === this.root;
    this.host.replaceChildren(root);
    this.root = root;
    if (focused) root.focus({ preventScroll: true });
  }

  interval(root, r, x, mid, dom) {
    const inside = (v) => Math.min(Math.max(v, dom[0]), dom[1]);
    const g = svg("g", { class: "interval" + (r.chosen ? " chosen" : ""), "pointer-events": "none" });
    if (finite(r.lo) && finite(r.hi)) {
      g.append(svg("line", { class: "whisker", x1: x(inside(r.lo)), x2: x(inside(r.hi)), y1: mid, y2: mid, style: `stroke:${r.color};stroke-width:1.7` }));
      for (const [v, out, dir] of [[r.lo, r.lo < dom[0], 1], [r.hi, r.hi > dom[1], -1]]) {
        const px = x(inside(v));
        if (out) g.append(svg("path", { class: "point", d: `M${px},${mid}l${6 * dir},-4v8Z`, style: `fill:${r.color}` }));
        else g.append(svg("line", { class: "whisker", x1: px, x2: px, y1: mid - 3.5, y2: mid + 3.5, style: `stroke:${r.color};stroke-width:1.4` }));
      }
    }
    if (r.est >= dom[0] && r.est <= dom[1]) g.append(svg("path", { class: "point", d: shapePath(r.shape || "square", x(r.est), mid, 4.6), style: `fill:${r.color}` }));
    root.append(g);
  }

  point(item, speak, e) {
    for (const it of this.items) it.shade.classList.toggle("on", it === item);
    if (!item) { tip.hide(); return; }
    const b = this.root.getBoundingClientRect(), k = b.width / this.width;
    tip.show(item.r.tip || [item.r.label], e ? e.clientX : b.left + this.width * 0.4 * k, e ? e.clientY : b.top + item.mid * k, speak);
  }

  scaleBy(k) { this.zoom = Math.min(8, Math.max(0.05, this.zoom * k)); this.draw(); }
  reset() { this.zoom = 1; this.draw(); }
  svgNode() { return this.root; }
}

/* Why a row has nothing drawn; what is kept back for its few eyes does have an estimate. */
const absence = (r) => (!r.note || r.note === "no estimate" ? "no estimate" : r.note.startsWith("not shown") ? r.note : "no estimate: " + r.note);

/* Horizontal stacked bars: missingness, exclusions, quality by group. */
class BarPlot {
  constructor(figure, host) {
    this.figure = figure;
    this.host = host;
    host.classList.add("plot");
    onWidth(host, (w) => { this.width = w; this.draw(); });
  }

  /* spec: {label, xLabel, max, percent, series: [{label, color}], rows: [{label, values: [number|null], text, tip}]} */
  set(spec) { this.spec = spec; this.cursor = -1; this.draw(); }

  draw() {
    if (!this.spec || !this.width) return;
    const s = this.spec, W = this.width, narrow = W < 560;
    const longest = Math.max(6, ...s.rows.map((r) => r.label.length));
    const left = narrow ? 14 : Math.min(W * 0.36, 14 + longest * 6.6), right = Math.max(64, 14 + 7 * Math.max(...s.rows.map((r) => (r.text || "").length)));
    const rowH = narrow ? 40 : 22;
    const legend = [[]];
    let used = 0;
    for (const e of s.series.filter((q) => !(s.hidden || []).includes(q.label))) { const w = 26 + e.label.length * 6.4; if (used + w > W && legend[legend.length - 1].length) { legend.push([]); used = 0; } legend[legend.length - 1].push({ ...e, at: used }); used += w; }
    const top = 8 + (s.series.length > 1 ? legend.length * 18 : 0), H = top + rowH * s.rows.length + 44;
    const x = scale([0, s.max], [left, W - right]);
    const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, width: W, height: H, role: "img", tabindex: "0", "aria-label": s.label + ". Arrow keys step through the bars." });
    if (s.series.length > 1) legend.forEach((row, j) => row.forEach((e) => {
      root.append(svg("rect", { x: 2 + e.at, y: 3 + j * 18, width: 11, height: 11, style: `fill:${e.color}` }));
      root.append(svg("text", { class: "tick", x: 18 + e.at, y: 9 + j * 18, "dominant-baseline": "central" }, e.label));
    }));
    for (const t of linearTicks(0, s.max, Math.max(2, Math.floor((W - left - right) / 70)))) {
      root.append(svg("line", { class: "grid", x1: x(t), x2: x(t), y1: top, y2: top + rowH * s.rows.length }));
      root.append(svg("text", { class: "tick", x: x(t), y: top + rowH * s.rows.length + 15, "text-anchor": "middle" }, s.percent ? fmtNumber(t * 100) + " %" : fmtCount(t)));
    }
    root.append(svg("text", { class: "label", x: (left + W - right) / 2, y: H - 6, "text-anchor": "middle" }, s.xLabel || ""));
    this.items = [];
    s.rows.forEach((r, i) => {
      const y0 = top + i * rowH, bar = narrow ? y0 + 19 : y0 + 4, h = narrow ? 15 : rowH - 8;
      const shade = svg("rect", { class: "row", x: 0, y: y0, width: W, height: rowH });
      root.append(shade);
      root.append(svg("text", { class: "rowlabel", x: narrow ? 2 : left - 8, y: narrow ? y0 + 9 : y0 + rowH / 2, "text-anchor": narrow ? "start" : "end", "dominant-baseline": "central" }, clipLabel(r.label, narrow ? Math.floor(W / 6.8) : Math.floor((left - 8) / 6.2))));
      let at = 0;
      r.values.forEach((v, j) => {
        if (!finite(v) || v <= 0) return;
        root.append(svg("rect", { x: x(at), y: bar, width: Math.max(0.6, x(at + v) - x(at)), height: h, "pointer-events": "none", style: `fill:${s.series[j].color}` }));
        at += v;
      });
      root.append(svg("text", { class: "cell", x: x(at) + 6, y: bar + h / 2, "dominant-baseline": "central" }, r.text || ""));
      const item = { r, mid: y0 + rowH / 2, shade };
      this.items.push(item);
      shade.addEventListener("pointermove", (e) => this.point(item, false, e));
      shade.addEventListener("pointerleave", () => this.point(null));
      shade.addEventListener("click", (e) => this.point(item, true, e));
    });
    root.append(svg("line", { class: "axis", x1: left, x2: left, y1: top, y2: top + rowH * s.rows.length }));
    root.addEventListener("keydown", (e) => {
      const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[e.key];
      if (!step || !this.items.length) { if (e.key === "Escape") this.point(null); return; }
      this.cursor = (this.cursor + step + this.items.length) % this.items.length;
      this.point(this.items[this.cursor], true);
      e.preventDefault();
    });
    root.addEventListener("blur", () => this.point(null));
    this.host.replaceChildren(root);
    this.root = root;
  }

  point(item, speak, e) {
    for (const it of this.items) it.shade.classList.toggle("on", it === item);
    if (!item) { tip.hide(); return; }
    const b = this.root.getBoundingClientRect(), k = b.width / this.width;
    tip.show(item.r.tip || [item.r.label, item.r.text || ""], e ? e.clientX : b.left + 120 * k, e ? e.clientY : b.top + item.mid * k, speak);
  }

  svgNode() { return this.root; }
}
