/* Figures with their own controls: distributions, dose-response, subgroups, sensitivity, discrimination and the rest. */
const ratioOf = (block, outcome) => block.meta.outcomes.find((o) => o.name === outcome) || { ratio: true, measure: "Odds ratio", short: "OR", per: "per SD" };

/* Covariate sets that occur, the primary one first. */
const setsOf = (block, rows) => asOptions(distinct(rows, "set").sort((a, b) => (b === block.meta.primary) - (a === block.meta.primary)));

/* Outcome and biomarker selects that follow each other, and the biomarker marked in the association plots. */
function outcomeAndBiomarker(figure, rows, extra, draw) {
  const c = controls(figure, [{ key: "outcome", label: "Outcome", options: asOptions(distinct(rows, "outcome")) }, { key: "biomarker", label: "Biomarker", options: [["", ""]] }, ...extra], (s, key) => { if (key === "outcome") refill(); draw(); });
  const refill = () => c.options("biomarker", asOptions(distinct(rows.filter((r) => r.outcome === c.state.outcome), "biomarker")));
  refill();
  return c;
}

const groupSize = (r) => (finite(r.n) ? "n = " + fmtCount(r.n) : "n not shown");

builders.distribution = (figure, host, block) => {
  const plot = new XYPlot(figure, host), rows = rowsOf(block.summary);
  const c = controls(figure, [{ key: "outcome", label: "Outcome", options: asOptions(distinct(rows, "outcome")) }, { key: "family", label: "Family", options: [["", "all families"], ...asOptions(block.meta.families)] }, { key: "biomarker", label: "Biomarker", options: [["", ""]] }], (s, key) => { if (key !== "biomarker") refill(); draw(); });
  const refill = () => c.options("biomarker", block.meta.biomarkers.filter((b) => !c.state.family || b.family === c.state.family).map((b) => [b.name, b.name]));
  refill();
  let shown = [];
  const draw = () => {
    const s = c.state, density = block.density[s.outcome + "\u0000" + s.biomarker], entry = block.meta.biomarkers.find((b) => b.name === s.biomarker) || {};
    shown = rows.filter((r) => r.outcome === s.outcome && r.biomarker === s.biomarker);
    const marks = [], legend = [], xsAll = [], peaks = [0];
    const lift = 0.11 * shown.length + 0.05;
    shown.forEach((r, g) => {
      const k = color(g), d = density && density.groups[r.group], dash = ["", "6 3", "2 3", "8 3 2 3", "1 3"][g % 5];
      legend.push({ label: `${r.group} (${groupSize(r)})`, color: k, line: true, dash });
      for (const v of [r.p05, r.p95]) if (finite(v)) xsAll.push(v);
      if (d) d.forEach((v) => { if (finite(v)) peaks.push(v); });
    });
    const peak = Math.max(...peaks) || 1;
    shown.forEach((r, g) => {
      const k = color(g), d = density && density.groups[r.group], dash = ["", "6 3", "2 3", "8 3 2 3", "1 3"][g % 5];
      if (d) {
        const w = (density.high - density.low) / d.length;
        let xs = [], ys = [];
        const flush = () => { if (xs.length) marks.push({ type: "line", xs, ys, color: k, dash }); xs = []; ys = []; };
        d.forEach((v, i) => { if (!finite(v)) { flush(); return; } xs.push(density.low + i * w, density.low + (i + 1) * w); ys.push(v / peak, v / peak); });
        flush();
        xsAll.push(density.low, density.high);
      }
      const y = -0.07 - 0.11 * g;
      if (finite(r.p50)) {
        marks.push({ type: "bars", color: k, width: 1.3, items: [{ x0: r.p05, x1: r.p95, y }] }, { type: "bars", color: k, width: 7, items: [{ x0: r.p25, x1: r.p75, y }] });
        marks.push({ type: "points", items: [{ x: r.p50, y, color: "var(--paper)", shape: "circle", r: 3, tip: [r.group, `median ${fmtNumber(r.p50)} (quartiles ${fmtNumber(r.p25)} to ${fmtNumber(r.p75)})`, `5th to 95th percentile ${fmtNumber(r.p05)} to ${fmtNumber(r.p95)}`, `mean ${fmtNumber(r.mean)}, SD ${fmtNumber(r.sd)}`, groupSize(r)] }] });
      }
    });
    plot.set({ label: `Distribution of ${s.biomarker} by group of ${s.outcome}`, xLabel: s.biomarker + (entry.unit ? ` (${entry.unit})` : ""), yLabel: "density (relative)", xDomain: padDomain(xsAll, 0.03), yDomain: [-lift, 1.06], yTickMin: 0, xTicks: entry.unit === "count" ? linearTicks(...padDomain(xsAll, 0.03), 8).filter(Number.isInteger).map((t) => ({ at: t, label: fmtCount(t) })) : undefined, marks: [{ type: "hline", at: 0 }, ...marks], legend, height: 330 });
  };
  draw();
  toolbar(figure, plot, () => [["outcome", "group", "biomarker", "n", "mean", "sd", "p05", "p25", "p50", "p75", "p95"], shown.map((r) => [r.outcome, r.group, r.biomarker, finite(r.n) ? r.n : null, r.mean, r.sd, r.p05, r.p25, r.p50, r.p75, r.p95])]);
};

builders.correlation = (figure, host, block) => {
  const plot = new HeatMap(figure, host);
  const all = block.labels.map((_, i) => i);
  const c = controls(figure, [{ key: "family", label: "Family", options: [["", "all families"], ...asOptions([...new Set(block.families)])] }], () => draw());
  const keep = () => all.filter((i) => !c.state.family || block.families[i] === c.state.family);
  const draw = () => plot.set({ label: `Correlation matrix of ${keep().length} biomarkers`, labels: block.labels, values: block.values, tree: block.tree, keep: keep() });
  draw();
  window.addEventListener("themechange", () => plot.draw());
  toolbar(figure, plot, () => [["biomarker", ...keep().map((i) => block.labels[i])], keep().map((i) => [block.labels[i], ...keep().map((j) => { const v = block.values[i * block.labels.length + j]; return v === null ? null : v / 100; })])]);
};

builders.shape = (figure, host, block) => {
  const plot = new XYPlot(figure, host), quintiles = rowsOf(block.quintiles), spline = rowsOf(block.spline), tests = rowsOf(block.tests);
  const note = el("p", { class: "figure-note" });
  let shown = [];
  const draw = () => {
    const s = c.state, match = (r) => r.outcome === s.outcome && r.biomarker === s.biomarker && r.set === s.set, o = ratioOf(block, s.outcome);
    const curve = spline.filter((r) => match(r) && finite(r.est)).sort((a, b) => a.x - b.x), five = quintiles.filter((r) => match(r)), t = tests.find(match);
    shown = [...five.map((r) => ["quintile " + r.quintile, r.median, r.est, r.lo, r.hi, r.n, r.cases]), ...curve.map((r) => ["spline", r.x, r.est, r.lo, r.hi, null, null])];
    // Quintiles are relative to the first, the spline to the median: the quintiles are moved by the spline's value at the first one's median.
    const q1 = five.find((r) => r.quintile === 1), near = curve.length && q1 && finite(q1.median) ? curve.reduce((a, b) => (Math.abs(b.x - q1.median) < Math.abs(a.x - q1.median) ? b : a)).est : 0;
    const items = [], bars = [];
    for (const r of five) {
      const est = r.quintile === 1 ? 0 : r.est;
      if (!finite(est) || !finite(r.median)) continue;
      if (finite(r.lo) && r.quintile !== 1) bars.push({ x: r.median, lo: r.lo + near, hi: r.hi + near });
      items.push({ x: r.median, y: est + near, color: color(1), shape: "square", r: 4.5, tip: [`Quintile ${r.quintile}: ${finite(r.low) ? fmtNumber(r.low) : "lowest"} to ${finite(r.high) ? fmtNumber(r.high) : "highest"}`, r.quintile === 1 ? "reference" : `${o.short} ${estimateText(r, o.ratio)} against quintile 1`, countsText(r)] });
    }
    const against = curve.length ? "the median" : "the lowest quintile";
    const xs = curve.map((r) => r.x), ys = [...items.map((i) => i.y), ...curve.map((r) => r.est)], spread = padDomain(ys, 0.05, [0]), room = Math.max(spread[1] - spread[0], 0.3);
    const limits = [...curve.flatMap((r) => [r.lo, r.hi]), ...bars.flatMap((r) => [r.lo, r.hi])].filter(finite);
    const yDomain = [Math.max(Math.min(spread[0], ...limits), spread[0] - room), Math.min(Math.max(spread[1], ...limits), spread[1] + room)];
    plot.set({
      label: `Dose-response of ${s.biomarker} and ${s.outcome}`, xLabel: s.biomarker + (block.meta.units[s.biomarker] ? ` (${block.meta.units[s.biomarker]})` : ""), yLabel: o.ratio ? `${o.measure.toLowerCase()} against ${against}` : `difference against ${against}`, yType: o.ratio ? "log" : "linear",
      xDomain: padDomain([...xs, ...items.map((i) => i.x)], 0.03), yDomain,
      marks: [{ type: "hline", at: 0 }, { type: "band", xs, lo: curve.map((r) => r.lo), hi: curve.map((r) => r.hi), color: "var(--band1)" }, { type: "line", xs, ys: curve.map((r) => r.est), color: color(0) }, { type: "bars", items: bars, color: color(1), width: 1.6, arrows: true }, { type: "points", items }],
      legend: [...(curve.length ? [{ label: `restricted cubic spline, ${block.meta.level} % CI`, color: color(0), line: true }] : []), ...(items.length ? [{ label: `quintiles, ${block.meta.level} % CI`, color: color(1), shape: "square" }] : [])],
    });
    note.textContent = t ? `Adjusted for ${s.set}. n = ${fmtCount(t.n)}` + (t.cases !== null ? `, cases ${fmtCount(t.cases)}` : "") + `; p overall ${fmtP(t.nlp_overall)}, p for non-linearity ${fmtP(t.nlp_nonlinear)} (q ${fmtP(t.nlq_nonlinear)}), p for trend over quintiles ${fmtP(t.nlp_trend)}.` + (curve.length ? "" : " No curve could be fitted.") + (t.note ? ` Note: ${t.note}.` : "") : "";
  };
  const c = outcomeAndBiomarker(figure, tests.length ? tests : quintiles, [{ key: "set", label: "Adjusted for", options: setsOf(block, tests.length ? tests : quintiles) }], draw);
  draw();
  figure.insertBefore(note, figure.querySelector("figcaption"));
  toolbar(figure, plot, () => [["kind", "x", "estimate", "ci_low", "ci_high", "n", "n_cases"], shown]);
};

builders.subgroups = (figure, host, block) => {
  const plot = new ForestPlot(figure, host), rows = rowsOf(block.rows), tests = rowsOf(block.tests);
  let shown = [];
  const draw = () => {
    const s = c.state, o = ratioOf(block, s.outcome), match = (r) => r.outcome === s.outcome && r.biomarker === s.biomarker && r.set === s.set;
    const mine = rows.filter(match), out = [];
    shown = mine;
    const line = (r, label, indent) => ({ label, indent, est: r.est, lo: r.lo, hi: r.hi, note: r.note || "no estimate", color: color(indent ? 0 : 7), shape: indent ? "square" : "diamond", cells: [estimateText(r, o.ratio), fmtP(r.nlp), fmtCount(r.n) + (r.cases !== null ? " / " + fmtCount(r.cases) : "")], tip: [`${s.biomarker}, ${r.subgroup === "all" ? "everybody" : r.subgroup}`, `${o.measure} ${o.per} ${estimateText(r, o.ratio)}`, `p = ${fmtP(r.nlp)}`, countsText(r)].concat(r.note ? ["Note: " + r.note] : []) });
    mine.filter((r) => r.subgroup === "all").forEach((r) => out.push(line(r, "Everybody", false)));
    for (const v of distinct(mine.filter((r) => r.subgroup !== "all"), "variable")) {
      const t = tests.find((q) => match(q) && q.variable === v);
      out.push({ heading: v + (t ? `: p for interaction ${fmtP(t.nlp)}` + (finite(t.nlq) ? `, q ${fmtP(t.nlq)}` : "") : "") });
      mine.filter((r) => r.variable === v).forEach((r) => out.push(line(r, r.subgroup.slice(v.length + 1), true)));
    }
    plot.set({ label: `Subgroups, ${s.biomarker} and ${s.outcome}`, xLabel: `${o.measure} ${o.per} (${block.meta.level} % CI)`, log: o.ratio, ref: 0, rows: out, columns: [{ label: `${o.short} (CI)`, width: 158 }, { label: "p", width: 78 }, { label: o.cases ? "n / cases" : "n", width: 96 }] });
  };
  const c = outcomeAndBiomarker(figure, rows.filter((r) => r.subgroup !== "all"), [{ key: "set", label: "Adjusted for", options: setsOf(block, rows.filter((r) => r.subgroup !== "all")) }], draw);
  draw();
  toolbar(figure, plot, () => [["outcome", "biomarker", "covariate_set", "subgroup", "n", "n_cases", "estimate", "ci_low", "ci_high", "neg_log10_p", "note"], shown.map((r) => [r.outcome, r.biomarker, r.set, r.subgroup, r.n, r.cases, r.est, r.lo, r.hi, r.nlp, r.note])]);
};

builders.sensitivity = (figure, host, block) => {
  const plot = new ForestPlot(figure, host), rows = rowsOf(block.rows);
  let shown = [];
  const draw = () => {
    const s = c.state, o = ratioOf(block, s.outcome);
    shown = rows.filter((r) => r.outcome === s.outcome && r.biomarker === s.biomarker);
    plot.set({
      label: `Sensitivity analyses, ${s.biomarker} and ${s.outcome}`, xLabel: `${o.measure} ${o.per} (${block.meta.level} % CI)`, log: o.ratio, ref: 0,
      rows: shown.map((r) => ({ label: r.label, est: r.est, lo: r.lo, hi: r.hi, note: r.note || "no estimate", color: r.analysis === "primary" ? color(7) : color(0), shape: r.analysis === "primary" ? "diamond" : "square", cells: [estimateText(r, o.ratio), fmtP(r.nlp), fmtCount(r.n) + (r.cases !== null ? " / " + fmtCount(r.cases) : "")], tip: [r.label, `${o.measure} ${o.per} ${estimateText(r, o.ratio)}`, `p = ${fmtP(r.nlp)}`, `n = ${fmtCount(r.n)}`, `adjusted for ${r.set}`].concat(r.note ? ["Note: " + r.note] : []) })),
      columns: [{ label: `${o.short} (CI)`, width: 158 }, { label: "p", width: 78 }, { label: o.cases ? "n / cases" : "n", width: 96 }],
    });
  };
  const c = outcomeAndBiomarker(figure, rows, [], draw);
  draw();
  toolbar(figure, plot, () => [["outcome", "biomarker", "covariate_set", "analysis", "n", "n_cases", "estimate", "ci_low", "ci_high", "neg_log10_p", "note"], shown.map((r) => [r.outcome, r.biomarker, r.set, r.analysis, r.n, r.cases, r.est, r.lo, r.hi, r.nlp, r.note])]);
};

builders.replication = (figure, host, block) => {
  const plot = new XYPlot(figure, host), rows = rowsOf(block.rows);
  let shown = [];
  const c = controls(figure, [{ key: "outcome", label: "Outcome", options: asOptions(distinct(rows, "outcome")) }, { key: "set", label: "Adjusted for", options: setsOf(block, rows) }], () => draw());
  const draw = () => {
    const s = c.state, o = ratioOf(block, s.outcome);
    shown = rows.filter((r) => r.outcome === s.outcome && r.set === s.set && finite(r.d) && finite(r.r));
    const items = shown.map((r) => ({ x: r.d, y: r.r, color: r.replicated ? color(0) : "var(--soft)", shape: r.replicated ? "circle" : "diamond", tip: [r.biomarker, `discovery (n = ${fmtCount(r.nd)}): ${o.short} ${o.ratio ? fmtRatio(Math.exp(r.d)) : fmtNumber(r.d)}, q ${fmtP(r.nlqd)}`, `replication (n = ${fmtCount(r.nr)}): ${o.short} ${o.ratio ? fmtRatio(Math.exp(r.r)) : fmtNumber(r.r)}, p ${fmtP(r.nlpr)}`, r.same ? "same direction" : "opposite direction", finite(r.i2) ? `I\u00b2 ${fmtNumber(r.i2)}` : ""] }));
    const [lo, hi] = bulk(shown.flatMap((r) => [r.d, r.r])), held = (v) => Math.min(hi, Math.max(lo, v));
    items.forEach((i) => { i.x = held(i.x); i.y = held(i.y); });
    const d = padDomain(shown.flatMap((r) => [held(r.d), held(r.r)]), 0.08, [0]);
    plot.set({ key: s.outcome, label: `Discovery and replication, ${s.outcome}`, xLabel: `${o.measure.toLowerCase()} ${o.per}, discovery part` + (o.ratio ? " (log scale)" : ""), yLabel: `${o.measure.toLowerCase()}, replication part`, xType: o.ratio ? "log" : "linear", yType: o.ratio ? "log" : "linear", xDomain: d, yDomain: d, marks: [{ type: "hline", at: 0 }, { type: "vline", at: 0 }, { type: "line", xs: d, ys: d, color: "var(--soft)", dash: "4 3" }, { type: "points", items }], legend: [{ label: "replicated", color: color(0) }, { label: "not replicated", color: "var(--soft)", shape: "diamond" }] });
  };
  draw();
  toolbar(figure, plot, () => [["outcome", "biomarker", "covariate_set", "estimate_discovery", "estimate_replication", "replicated"], shown.map((r) => [r.outcome, r.biomarker, r.set, r.d, r.r, r.replicated])]);
};

builders.error = (figure, host, block) => {
  const plot = new ForestPlot(figure, host), rows = rowsOf(block.rows);
  let shown = [];
  const c = controls(figure, [{ key: "outcome", label: "Outcome", options: asOptions(distinct(rows, "outcome")) }, { key: "set", label: "Adjusted for", options: setsOf(block, rows) }], () => draw());
  const draw = () => {
    const s = c.state, o = ratioOf(block, s.outcome), out = [];
    shown = rows.filter((r) => r.outcome === s.outcome && r.set === s.set);
    for (const r of shown) {
      out.push({ heading: `${r.biomarker}: reliability ${finite(r.rel) ? fmtNumber(r.rel, 2) : "\u2013"}` + (finite(r.rel_lo) ? ` (${fmtNumber(r.rel_lo, 2)} to ${fmtNumber(r.rel_hi, 2)})` : "") + (r.source ? `, from ${r.source.replace(/_/g, " ")}` : "") });
      [["as measured", "est", "lo", "hi", 7, "diamond"], ["regression calibration", "est_rc", "lo_rc", "hi_rc", 0, "square"], ["SIMEX", "est_sx", "lo_sx", "hi_sx", 1, "triangle"]].forEach(([label, e, l, h, k, shape]) => {
        if (!finite(r[e]) && label !== "as measured") return;
        out.push({ label, indent: true, est: r[e], lo: r[l], hi: r[h], note: r.note, color: color(k), shape, cells: [estimateText(r, o.ratio, [e, l, h])], tip: [`${r.biomarker}, ${label}`, `${o.measure} ${o.per} ${estimateText(r, o.ratio, [e, l, h])}`].concat(r.note ? ["Note: " + r.note] : []) });
      });
    }
    plot.set({ label: `Measurement error, ${s.outcome}`, xLabel: `${o.measure} ${o.per} (${block.meta.level} % CI)`, log: o.ratio, ref: 0, rows: out, columns: [{ label: `${o.short} (CI)`, width: 158 }] });
  };
  draw();
  toolbar(figure, plot, () => [["outcome", "biomarker", "covariate_set", "reliability", "estimate", "estimate_rc", "estimate_simex"], shown.map((r) => [r.outcome, r.biomarker, r.set, r.rel, r.est, r.est_rc, r.est_sx])]);
};

/* AUC with interval, one row each, against a reference line: discrimination and the camera check. */
builders.auc = (figure, host, block) => {
  const plot = new ForestPlot(figure, host), rows = rowsOf(block.rows);
  let shown = [];
  const most = Math.max(0, ...distinct(rows, "outcome").map((o) => rows.filter((r) => r.outcome === o).length));
  const c = controls(figure, [{ key: "outcome", label: "Outcome", options: asOptions(distinct(rows, "outcome")) }, ...(most > 16 ? [{ key: "top", label: "Show", options: [["14", "14 rows"], ["1000", "all"]] }] : [])], () => draw());
  const draw = () => {
    shown = rows.filter((r) => r.outcome === c.state.outcome).slice(0, Number(c.state.top || 1e4));
    plot.set({
      label: `Area under the ROC curve, ${c.state.outcome}`, xLabel: `AUC (${block.meta.level} % CI)`, log: false, ref: 0.5,
      rows: shown.map((r) => ({ label: r.label, est: r.est, lo: r.lo, hi: r.hi, note: r.note || "no estimate", color: r.warning ? color(1) : color(r.k || 0), shape: r.warning ? "triangle" : "square", cells: [finite(r.est) ? `${r.est.toFixed(3)} (${finite(r.lo) ? r.lo.toFixed(3) : "\u2013"} to ${finite(r.hi) ? r.hi.toFixed(3) : "\u2013"})` : "\u2013", r.extra || "", fmtCount(r.n) + (r.cases !== null ? " / " + fmtCount(r.cases) : "")], tip: [r.label].concat(r.detail ? r.detail.split("\n") : []).concat(r.note ? ["Note: " + r.note] : []) })),
      columns: [{ label: "AUC (CI)", width: 150 }, { label: block.meta.extra || "", width: 172 }, { label: "n / cases", width: 82 }],
    });
  };
  draw();
  toolbar(figure, plot, () => [["outcome", "label", "auc", "ci_low", "ci_high", "n", "n_cases", "note"], shown.map((r) => [r.outcome, r.label, r.est, r.lo, r.hi, r.n, r.cases, r.note])]);
};

builders.roc = (figure, host, block) => {
  const plot = new XYPlot(figure, host), rows = rowsOf(block.rows);
  const c = controls(figure, [{ key: "outcome", label: "Outcome", options: asOptions(distinct(rows, "outcome")) }], () => draw());
  let shown = [];
  const draw = () => {
    shown = rows.filter((r) => r.outcome === c.state.outcome);
    const groups = distinct(shown, "predictors"), dashes = ["", "6 3", "2 3", "8 3 2 3"];
    plot.set({ label: `ROC curves, ${c.state.outcome}`, xLabel: "1 \u2212 specificity", yLabel: "sensitivity", xDomain: [0, 1], yDomain: [0, 1.02], marks: [{ type: "line", xs: [0, 1], ys: [0, 1], color: "var(--soft)", dash: "4 3" }, ...groups.map((g, i) => { const r = shown.filter((q) => q.predictors === g).sort((a, b) => a.fpr - b.fpr || a.tpr - b.tpr); return { type: "line", xs: r.map((q) => q.fpr), ys: r.map((q) => q.tpr), color: color(i), dash: dashes[i % 4] }; })], legend: groups.map((g, i) => ({ label: g, color: color(i), line: true, dash: dashes[i % 4] })) });
  };
  draw();
  toolbar(figure, plot, () => [["outcome", "predictors", "fpr", "tpr"], shown.map((r) => [r.outcome, r.predictors, r.fpr, r.tpr])]);
};

builders.calibration = (figure, host, block) => {
  const plot = new XYPlot(figure, host), rows = rowsOf(block.rows);
  const c = controls(figure, [{ key: "outcome", label: "Outcome", options: asOptions(distinct(rows, "outcome")) }], () => draw());
  let shown = [];
  const draw = () => {
    shown = rows.filter((r) => r.outcome === c.state.outcome && finite(r.predicted) && finite(r.observed));
    const groups = distinct(shown, "predictors"), top = padDomain([...shown.map((r) => r.predicted), ...shown.map((r) => r.hi ?? r.observed)], 0.05, [0])[1];
    plot.set({ label: `Calibration, ${c.state.outcome}`, xLabel: "predicted risk", yLabel: "observed share", xDomain: [0, top], yDomain: [0, top], marks: [{ type: "line", xs: [0, top], ys: [0, top], color: "var(--soft)", dash: "4 3" }, ...groups.flatMap((g, i) => { const r = shown.filter((q) => q.predictors === g); return [{ type: "bars", color: color(i), items: r.filter((q) => finite(q.lo)).map((q) => ({ x: q.predicted, lo: q.lo, hi: q.hi })) }, { type: "points", items: r.map((q) => ({ x: q.predicted, y: q.observed, color: color(i), shape: SHAPES[i % SHAPES.length], tip: [g, `predicted ${fmtNumber(q.predicted)}, observed ${fmtNumber(q.observed)}`, `n = ${fmtCount(q.n)}`] })) }]; })], legend: groups.map((g, i) => ({ label: g, color: color(i), shape: SHAPES[i % SHAPES.length] })) });
  };
  draw();
  toolbar(figure, plot, () => [["outcome", "predictors", "predicted", "observed", "ci_low", "ci_high"], shown.map((r) => [r.outcome, r.predictors, r.predicted, r.observed, r.lo, r.hi])]);
};

builders.agreement = (figure, host, block) => {
  const plot = new ForestPlot(figure, host), rows = rowsOf(block.rows);
  let shown = [];
  const c = controls(figure, [{ key: "family", label: "Family", options: [["", "all families"], ...asOptions(distinct(rows, "family"))] }, { key: "top", label: "Show", options: [["20", "20 of the strongest associations"], ["1000", "all"]] }], () => draw());
  const draw = () => {
    shown = rows.filter((r) => (!c.state.family || r.family === c.state.family) && finite(r.est)).slice(0, Number(c.state.top));
    const seen = block.meta.families;
    plot.set({ label: "Agreement of right and left eye", xLabel: `ICC(1,1) (${block.meta.level} % CI)`, log: false, ref: 0, rows: [...shown].sort((a, b) => b.est - a.est).map((r) => ({ label: r.biomarker, est: r.est, lo: r.lo, hi: r.hi, color: color(seen.indexOf(r.family)), shape: SHAPES[seen.indexOf(r.family) % SHAPES.length], cells: [`${minus(r.est.toFixed(2))} (${finite(r.lo) ? minus(r.lo.toFixed(2)) : "\u2013"} to ${finite(r.hi) ? r.hi.toFixed(2) : "\u2013"})`, fmtCount(r.n)], tip: [r.biomarker, `ICC ${r.est.toFixed(2)}, ${fmtCount(r.n)} subjects with both eyes`, `right \u2212 left: mean ${fmtNumber(r.diff)}, limits of agreement ${fmtNumber(r.loa_lo)} to ${fmtNumber(r.loa_hi)}`] })), columns: [{ label: "ICC (CI)", width: 150 }, { label: "pairs", width: 80 }], legend: seen.map((f, i) => ({ label: f, color: color(i), shape: SHAPES[i % SHAPES.length] })) });
  };
  draw();
  toolbar(figure, plot, () => [["biomarker", "icc", "ci_low", "ci_high", "n_pairs", "mean_difference", "loa_low", "loa_high"], shown.map((r) => [r.biomarker, r.est, r.lo, r.hi, r.n, r.diff, r.loa_lo, r.loa_hi])]);
};

builders.bars = (figure, host, block) => {
  const plot = new BarPlot(figure, host), rows = rowsOf(block.rows), series = block.series;
  const specs = [];
  if (block.facets) specs.push({ key: "facet", label: block.facetLabel, options: asOptions(block.facets) });
  if (block.limits) specs.push({ key: "top", label: "Show", options: block.limits });
  const c = controls(figure, specs, () => draw());
  let shown = [];
  const draw = () => {
    shown = rows.filter((r) => !block.facets || r.facet === c.state.facet);
    const labels = distinct(shown, "label").slice(0, Number(c.state.top || 1e6));
    const out = labels.map((label) => {
      const mine = shown.filter((r) => r.label === label), values = series.map((s) => { const m = mine.find((r) => r.series === s); return m ? m.value : 0; });
      const total = values.reduce((a, b) => a + (finite(b) ? b : 0), 0), counts = mine.filter((r) => r.text).map((r) => `${r.series}: ${r.text}`);
      // The grey piece stands for the parts that are too small, so that with it nothing is missing from the sum.
      const whole = mine.some((r) => (block.joined || []).includes(r.series) && finite(r.value));
      const unseen = whole ? [] : mine.filter((r) => !finite(r.value) && r.text), floor = unseen.length ? Math.floor(total * 1000) / 10 : total * 100;
      const sum = block.percent ? floor.toFixed(1) + " %" : fmtCount(total);
      // A part that is too small to be shown is no zero: it stands as the bound that it is.
      const text = !unseen.length ? sum : total > 0 ? `> ${sum}` : unseen.map((r) => r.text).join(" + ");
      return { label, values, text, tip: [label, ...counts] };
    });
    plot.set({ label: block.label, xLabel: block.xLabel, percent: block.percent, hidden: series.filter((s) => !shown.some((r) => r.series === s && r.value > 0)), max: block.percent && block.full ? 1 : Math.max(1e-9, ...out.map((r) => r.values.reduce((a, b) => a + (b || 0), 0))) * 1.02, series: series.map((s, i) => ({ label: s, color: (block.joined || []).includes(s) ? "var(--hair)" : color(i) })), rows: out });
  };
  draw();
  toolbar(figure, plot, () => [["group", "row", "series", "value", "count"], shown.map((r) => [r.facet, r.label, r.series, r.value, r.text])]);
};
