/* One plot with two axes: points, lines, bands, bars and reference lines; zoom, hover and keyboard. */
class XYPlot {
  constructor(figure, host) {
    this.figure = figure;
    this.host = host;
    this.zoom = null;
    this.cursor = -1;
    host.classList.add("plot");
    onWidth(host, (w) => { this.width = w; this.draw(); });
  }

  /* spec: {label, xLabel, yLabel, xType, xDomain, yDomain, xTicks, xBands, yZeroFloor, marks, height, legend} */
  set(spec) {
    const keep = this.spec && spec.key !== undefined && spec.key === this.spec.key;
    this.spec = spec;
    if (!keep) this.zoom = null;
    this.cursor = -1;
    this.draw();
  }

  points() {
    return this.spec.marks.filter((m) => m.type === "points").flatMap((m) => m.items);
  }

  draw() {
    if (!this.spec || !this.width) return;
    const s = this.spec, W = this.width, narrow = W < 520;
    const legendRows = s.legend && s.legend.length ? this.legendRows(s.legend, W) : [];
    const H = (s.height || Math.round(Math.min(440, Math.max(270, W * 0.56)))) + legendRows.length * 18;
    const m = { l: narrow ? 46 : 58, r: 14, t: 12 + legendRows.length * 18, b: s.xBands && !narrow ? 74 : 46 };
    const domain = this.zoom || { x: s.xDomain, y: s.yDomain };
    const x = scale(domain.x, [m.l, W - m.r]), y = scale(domain.y, [H - m.b, m.t]);
    this.x = x; this.y = y; this.box = { l: m.l, r: W - m.r, t: m.t, b: H - m.b };
    const clip = this.figure.id + "-clip";
    const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, width: W, height: H, role: "img", tabindex: "0", "aria-label": s.label + ". Arrow keys step through the points, plus and minus zoom, 0 resets." });
    root.append(svg("defs", {}, svg("clipPath", { id: clip }, svg("rect", { x: m.l, y: m.t, width: Math.max(0, W - m.r - m.l), height: Math.max(0, H - m.b - m.t) }))));

    const axes = svg("g", { class: "axes" });
    const yTicks = (s.yType === "log" ? logTicks : linearTicks)(domain.y[0], domain.y[1], H > 320 ? 6 : 4).filter((t) => s.yTickMin === undefined || t >= s.yTickMin);
    for (const t of yTicks) {
      axes.append(svg("line", { class: "grid", x1: m.l, x2: W - m.r, y1: y(t), y2: y(t) }));
      axes.append(svg("text", { class: "tick", x: m.l - 7, y: y(t), "text-anchor": "end", "dominant-baseline": "central" }, s.yType === "log" ? ratioTick(t) : fmtNumber(t)));
    }
    const count = Math.max(2, Math.floor((W - m.l - m.r) / 80));
    if (s.xBands) {
      const level = s.xBands.every((band) => x(band.to) - x(band.from) > band.label.length * 6.4);
      s.xBands.forEach((band, i) => {
        const a = Math.max(x(band.from), m.l), b = Math.min(x(band.to), W - m.r);
        if (b <= a) return;
        if (i % 2) axes.append(svg("rect", { class: "stripe", x: a, y: m.t, width: b - a, height: H - m.b - m.t }));
        const mid = (a + b) / 2;
        if (narrow) { if (b - a > 14) axes.append(svg("text", { class: "tick", x: mid, y: H - m.b + 14, "text-anchor": "middle" }, String(i + 1))); }
        else if (level) axes.append(svg("text", { class: "tick", x: mid, y: H - m.b + 14, "text-anchor": "middle" }, band.label));
        else axes.append(svg("text", { class: "tick", transform: `translate(${mid + 3},${H - m.b + 10}) rotate(28)`, "text-anchor": "start" }, clipLabel(band.label, 18)));
      });
    } else {
      const ticks = s.xTicks ? s.xTicks.filter((t) => t.at >= domain.x[0] && t.at <= domain.x[1])
        : (s.xType === "log" ? logTicks : linearTicks)(domain.x[0], domain.x[1], count).map((t) => ({ at: t, label: s.xType === "log" ? ratioTick(t) : fmtNumber(t) }));
      for (const t of ticks) {
        axes.append(svg("line", { class: "grid", x1: x(t.at), x2: x(t.at), y1: m.t, y2: H - m.b }));
        axes.append(svg("text", { class: "tick", x: x(t.at), y: H - m.b + 16, "text-anchor": "middle" }, t.label));
      }
    }
    axes.append(svg("line", { class: "axis", x1: m.l, x2: W - m.r, y1: H - m.b, y2: H - m.b }));
    axes.append(svg("line", { class: "axis", x1: m.l, x2: m.l, y1: m.t, y2: H - m.b }));
    axes.append(svg("text", { class: "label", x: (m.l + W - m.r) / 2, y: H - 6, "text-anchor": "middle" }, s.xLabel || ""));
    axes.append(svg("text", { class: "label", transform: `translate(12,${(m.t + H - m.b) / 2}) rotate(-90)`, "text-anchor": "middle" }, s.yLabel || ""));
    root.append(axes);

    const body = svg("g", { "clip-path": `url(#${clip})` });
    this.items = [];
    this.labels = [];
    this.above = []; // texts that points must not cover
    for (const mark of s.marks) this.mark(body, mark, x, y);
    body.append(...this.above);
    root.append(body);
    this.legend(root, legendRows, m);
    this.ring = svg("circle", { class: "ring", r: 8, cx: -99, cy: -99 });
    this.brush = svg("rect", { class: "brush", width: 0, height: 0 });
    root.append(this.ring, this.brush);
    this.listen(root);
    const focused = this.root && document.activeElement === this.root;
    this.host.replaceChildren(root);
    this.root = root;
    if (focused) root.focus({ preventScroll: true });
  }

  mark(g, k, x, y) {
    const b = this.box;
    if (k.type === "band") {
      const up = k.xs.map((v, i) => `${x(v)},${y(k.hi[i])}`), down = k.xs.map((v, i) => `${x(v)},${y(k.lo[i])}`).reverse();
      g.append(svg("polygon", { class: "band", points: up.concat(down).join(" "), style: `fill:${k.color}` }));
    } else if (k.type === "line") {
      const d = k.xs.map((v, i) => `${i ? "L" : "M"}${x(v).toFixed(1)},${y(k.ys[i]).toFixed(1)}`).join("");
      g.append(svg("path", { class: "line", d, style: `stroke:${k.color};${k.dash ? "stroke-dasharray:" + k.dash : ""}` }));
    } else if (k.type === "hline" || k.type === "vline") {
      const h = k.type === "hline", p = h ? y(k.at) : x(k.at);
      g.append(svg("line", { class: "ref", x1: h ? b.l : p, x2: h ? b.r : p, y1: h ? p : b.t, y2: h ? p : b.b, style: k.dash ? `stroke-dasharray:${k.dash}` : "" }));
      if (k.label) {
        // A label that would lie on the one of another line goes to the other end of its own.
        const w = k.label.length * 6.2, at = h ? p - 4 : b.t + 10, taken = h && this.labels.some((q) => Math.abs(q.y - at) < 16 && q.x1 > b.r - w);
        const x0 = h ? (taken ? b.l + 4 : b.r - 4 - w) : p + 4;
        this.above.push(svg("text", { class: "reflabel", x: h && !taken ? b.r - 4 : x0, y: at, "text-anchor": h && !taken ? "end" : "start" }, k.label));
        this.labels.push({ y: at, x0, x1: x0 + w });
      }
    } else if (k.type === "bars") {
      for (const q of k.items) g.append(svg("line", { class: "whisker", x1: x(q.x0 ?? q.x), x2: x(q.x1 ?? q.x), y1: y(q.lo ?? q.y), y2: y(q.hi ?? q.y), style: `stroke:${k.color};stroke-width:${k.width || 1.4}` }));
      if (k.arrows) for (const q of k.items) {
        // An interval that leaves the plot ends in an arrow at its edge.
        const px = x(q.x);
        if (px < b.l || px > b.r) continue;
        if (y(q.hi) < b.t) g.append(svg("path", { class: "point beyond", d: `M${px},${b.t}l-4,7h8Z`, style: `fill:${k.color}` }));
        if (y(q.lo) > b.b) g.append(svg("path", { class: "point beyond", d: `M${px},${b.b}l-4,-7h8Z`, style: `fill:${k.color}` }));
      }
    } else if (k.type === "points") {
      for (const p of k.items) {
        const px = x(p.x), py = y(p.y);
        const node = svg("path", { class: "point" + (p.dim ? " dim" : "") + (p.chosen ? " chosen" : ""), d: shapePath(p.shape || "circle", px, py, p.r || 4), style: `fill:${p.color}` });
        g.append(node);
        if (px >= b.l - 1 && px <= b.r + 1 && py >= b.t - 1 && py <= b.b + 1) this.items.push({ p, px, py });
        if (p.name) this.name(g, p, px, py);
      }
    }
  }

  /* A point's name beside it, unless it would lie on another name. */
  name(g, p, px, py) {
    const b = this.box, end = px > (b.l + b.r) / 2, w = p.name.length * 6.2, x0 = end ? px - 8 - w : px + 8;
    const y = [py + 4, py - 8, py + 15].find((v) => v > b.t + 6 && !this.labels.some((q) => Math.abs(q.y - v) < 12 && q.x0 < x0 + w && q.x1 > x0));
    if (y === undefined && !p.chosen) return;
    this.labels.push({ y: y ?? py - 8, x0, x1: x0 + w });
    this.above.push(svg("text", { class: "pointlabel", x: px + (end ? -8 : 8), y: y ?? py - 8, "text-anchor": end ? "end" : "start" }, p.name));
  }

  legendRows(entries, W) {
    const rows = [[]];
    let used = 0;
    for (const e of entries) {
      const w = 26 + e.label.length * 6.4;
      if (used + w > W - 60 && rows[rows.length - 1].length) { rows.push([]); used = 0; }
      rows[rows.length - 1].push({ ...e, at: used });
      used += w;
    }
    return rows;
  }

  legend(root, rows, m) {
    rows.forEach((row, j) => row.forEach((e) => {
      const x0 = m.l + e.at, y0 = 9 + j * 18;
      if (e.line) root.append(svg("line", { x1: x0 - 2, x2: x0 + 12, y1: y0, y2: y0, class: "line", style: `stroke:${e.color};${e.dash ? "stroke-dasharray:" + e.dash : ""}` }));
      else root.append(svg("path", { d: shapePath(e.shape || "circle", x0 + 5, y0, 4.5), class: "point", style: `fill:${e.color}` }));
      root.append(svg("text", { class: "tick", x: x0 + 17, y: y0, "dominant-baseline": "central" }, e.label));
    }));
  }

  nearest(px, py, reach = 22) {
    let best = null, d = reach * reach;
    for (const it of this.items) { const q = (it.px - px) ** 2 + (it.py - py) ** 2; if (q < d) { d = q; best = it; } }
    return best;
  }

  point(it, speak) {
    if (!it) { this.ring.setAttribute("cx", -99); tip.hide(); return; }
    this.ring.setAttribute("cx", it.px); this.ring.setAttribute("cy", it.py);
    const r = this.root.getBoundingClientRect();
    tip.show(it.p.tip, r.left + it.px * r.width / this.width, r.top + it.py * r.width / this.width, speak);
  }

  local(e) {
    const r = this.root.getBoundingClientRect(), k = this.width / r.width;
    return [(e.clientX - r.left) * k, (e.clientY - r.top) * k];
  }

  listen(root) {
    let start = null;
    root.addEventListener("pointermove", (e) => {
      const [px, py] = this.local(e);
      if (start && e.pointerType === "mouse") {
        setAttrs(this.brush, { x: Math.min(start[0], px), y: Math.min(start[1], py), width: Math.abs(px - start[0]), height: Math.abs(py - start[1]) });
        return;
      }
      this.point(this.nearest(px, py), false);
    });
    root.addEventListener("pointerleave", () => { this.point(null); });
    root.addEventListener("pointerdown", (e) => { if (e.button === 0) start = this.local(e); });
    root.addEventListener("pointerup", (e) => {
      if (!start) return;
      const [px, py] = this.local(e), [sx, sy] = start;
      start = null;
      setAttrs(this.brush, { width: 0, height: 0 });
      if (e.pointerType === "mouse" && Math.abs(px - sx) > 8 && Math.abs(py - sy) > 8) {
        const xs = [this.x.invert(px), this.x.invert(sx)].sort((a, b) => a - b), ys = [this.y.invert(py), this.y.invert(sy)].sort((a, b) => a - b);
        this.zoom = { x: xs, y: ys };
        this.draw();
      } else {
        const hit = this.nearest(px, py);
        if (hit) { this.point(hit, true); if (hit.p.choose) hit.p.choose(); }
      }
    });
    root.addEventListener("dblclick", () => this.reset());
    root.addEventListener("wheel", (e) => {
      // Plain scrolling belongs to the page; with Ctrl (or a pinch, which browsers report so) it zooms.
      if (!e.ctrlKey) return;
      e.preventDefault();
      const [px, py] = this.local(e);
      this.scaleBy(e.deltaY < 0 ? 0.8 : 1.25, this.x.invert(px), this.y.invert(py));
    }, { passive: false });
    root.addEventListener("keydown", (e) => {
      const order = [...this.items].sort((a, b) => a.px - b.px || a.py - b.py);
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[e.key];
      if (step && order.length) {
        this.cursor = (this.cursor + step + order.length) % order.length;
        this.point(order[this.cursor], true);
      } else if (e.key === "Enter" && order[this.cursor] && order[this.cursor].p.choose) order[this.cursor].p.choose();
      else if (e.key === "+" || e.key === "=") this.scaleBy(0.8);
      else if (e.key === "-") this.scaleBy(1.25);
      else if (e.key === "0") this.reset();
      else if (e.key === "Escape") { this.point(null); }
      else return;
      e.preventDefault();
    });
    root.addEventListener("blur", () => this.point(null));
  }

  scaleBy(k, cx, cy) {
    const d = this.zoom || { x: this.spec.xDomain, y: this.spec.yDomain };
    const around = (r, c) => { const q = c === undefined ? (r[0] + r[1]) / 2 : c; return [q - (q - r[0]) * k, q + (r[1] - q) * k]; };
    this.zoom = { x: around(d.x, cx), y: around(d.y, cy) };
    this.draw();
  }

  reset() { this.zoom = null; this.draw(); }

  svgNode() { return this.root; }
}
