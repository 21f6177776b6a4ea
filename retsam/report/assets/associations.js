/* The association plots: forest, volcano, Manhattan by family, QQ, and the table of all tests. They share one state. */
const associationCsv = (rows) => [
  ["outcome", "biomarker", "family", "covariate_set", "model", "n", "n_cases", "n_clusters", "estimate", "ci_low", "ci_high", "neg_log10_p", "neg_log10_q", "note"],
  rows.map((r) => [r.outcome, r.biomarker, r.family, r.set, r.model, r.n, r.cases, r.clusters, r.est, r.lo, r.hi, r.nlp, r.nlq, r.note]),
];

const familyLegend = (rows) => shared.meta.families.filter((f) => rows.some((r) => r.family === f)).map((f) => ({ label: f, color: familyColor(f), shape: familyShape(f) }));

function thresholdLines(t) {
  const marks = [];
  if (finite(t.bonferroni)) marks.push({ type: "hline", at: t.bonferroni, dash: "6 3", label: `Bonferroni, ${t.tests} tests` });
  if (finite(t.q) && Math.abs(t.q - t.bonferroni) > 0.05) marks.push({ type: "hline", at: t.q - 1e-3, dash: "2 3", label: `${shared.meta.method} ${shared.meta.alpha}` });
  return marks;
}

builders.forest = (figure, host) => {
  const plot = new ForestPlot(figure, host);
  const c = controls(figure, [
    { key: "order", label: "Order", options: [["p", "smallest p first"], ["estimate", "estimate"], ["name", "name"], ["family", "family"]] },
    { key: "top", label: "Show", options: [["15", "15"], ["30", "30"], ["60", "60"], ["1000", "all"]] },
    { key: "sets", label: "Covariate sets", options: [["one", "chosen one"], ["all", "all beside each other"]] },
  ], () => draw());
  let shown = [];
  const draw = () => {
    const { filtered } = shared.current(), o = shared.outcome(), s = c.state;
    const by = { p: (a, b) => compare(b.nlp ?? -1, a.nlp ?? -1), estimate: (a, b) => compare(b.est ?? -1e9, a.est ?? -1e9), name: (a, b) => compare(a.biomarker, b.biomarker), family: (a, b) => compare(shared.familyIndex(a.family), shared.familyIndex(b.family)) || compare(b.nlp ?? -1, a.nlp ?? -1) }[s.order];
    // The cut is always by p, so that "15" means the same 15 in any order.
    const kept = [...filtered].sort((a, b) => compare(b.nlp ?? -1, a.nlp ?? -1)).slice(0, Number(s.top)).sort(by);
    const rows = [];
    shown = [];
    let family = null;
    for (const r of kept) {
      if (s.order === "family" && r.family !== family) { family = r.family; rows.push({ heading: family }); }
      const group = s.sets === "all" ? shared.meta.sets.map((m) => shared.rows.find((q) => q.outcome === r.outcome && q.biomarker === r.biomarker && q.set === m.name)).filter(Boolean) : [r];
      group.forEach((q, i) => {
        shown.push(q);
        const k = shared.meta.sets.findIndex((m) => m.name === q.set);
        rows.push({
          label: group.length > 1 ? (i ? "\u00a0\u00a0\u00a0" : marked(r) + " ") : marked(r), est: q.est, lo: q.lo, hi: q.hi, note: q.note || "no estimate",
          color: s.sets === "all" ? color(k) : familyColor(q.family), shape: s.sets === "all" ? SHAPES[k % SHAPES.length] : familyShape(q.family), chosen: shared.state.chosen === q.biomarker,
          cells: [estimateText(q, o.ratio), fmtP(q.nlp), fmtP(q.nlq), fmtCount(q.n) + (q.cases !== null && q.cases !== undefined ? " / " + fmtCount(q.cases) : "")],
          tip: associationTip(q, o).concat(s.sets === "all" ? ["Adjusted for: " + shared.meta.sets[k].label] : []), choose: choose(q.biomarker),
        });
      });
    }
    plot.set({
      label: `Forest plot of ${o.name}`, xLabel: `${o.measure} ${o.per} (${shared.meta.level} % CI)`, log: o.ratio, ref: 0, rows,
      columns: [{ label: `${o.short} (${shared.meta.level} % CI)`, width: 158 }, { label: "p", width: 78 }, { label: "q", width: 78 }, { label: o.cases ? "n / cases" : "n", width: 96 }],
      legend: s.sets === "all" ? shared.meta.sets.map((m, i) => ({ label: m.label, color: color(i), shape: SHAPES[i % SHAPES.length] })) : familyLegend(kept),
    });
  };
  shared.on(draw);
  toolbar(figure, plot, () => associationCsv(shown));
};

builders.volcano = (figure, host) => {
  const plot = new XYPlot(figure, host);
  let shown = [];
  shared.on(() => {
    const { all, filtered } = shared.current(), o = shared.outcome(), s = shared.state, t = shared.threshold(all);
    shown = filtered.filter((r) => finite(r.est) && finite(r.nlp));
    const top = new Set([...shown].sort((a, b) => b.nlp - a.nlp).slice(0, 4).filter((r) => r.nlp >= (t.bonferroni ?? 99)).map((r) => r.biomarker));
    const [lo, hi] = bulk(shown.map((r) => r.est)), held = (v) => Math.min(hi, Math.max(lo, v));
    const items = shown.map((r) => ({ x: held(r.est), y: r.nlp, color: familyColor(r.family), shape: familyShape(r.family), tip: associationTip(r, o), choose: choose(r.biomarker), chosen: s.chosen === r.biomarker, r: s.chosen === r.biomarker ? 6.5 : 4.2, name: s.chosen === r.biomarker || top.has(r.biomarker) ? clipLabel(marked(r), 28) : null }));
    plot.set({
      key: s.outcome + s.set, label: `Volcano plot of ${o.name}, ${shown.length} biomarkers`, xLabel: `${o.measure} ${o.per}`, yLabel: "\u2212log\u2081\u2080 p", xType: o.ratio ? "log" : "linear",
      xDomain: padDomain(shown.map((r) => held(r.est)), 0.12, [0]), yDomain: [0, padDomain(shown.map((r) => r.nlp), 0.08, [0, (t.bonferroni ?? 1) * 1.15])[1]],
      marks: [{ type: "vline", at: 0 }, ...thresholdLines(t), { type: "points", items }], legend: familyLegend(shown),
    });
  });
  toolbar(figure, plot, () => associationCsv(shown));
};

builders.manhattan = (figure, host) => {
  const plot = new XYPlot(figure, host);
  let shown = [];
  shared.on(() => {
    const { all, filtered } = shared.current(), o = shared.outcome(), s = shared.state, t = shared.threshold(all);
    const bands = [], items = [];
    let at = 0;
    shown = [];
    for (const f of shared.meta.families) {
      const rows = filtered.filter((r) => r.family === f && finite(r.nlp));
      if (!rows.length) continue;
      const from = at;
      for (const r of rows) {
        items.push({ x: at + 0.5, y: r.nlp, color: familyColor(f), shape: r.est >= 0 ? "triangle" : "down", tip: associationTip(r, o), choose: choose(r.biomarker), chosen: s.chosen === r.biomarker, r: s.chosen === r.biomarker ? 6.5 : 4 });
        shown.push(r);
        at += 1;
      }
      bands.push({ from, to: at, label: f });
    }
    plot.set({
      key: s.outcome + s.set + s.family + s.query, label: `Manhattan plot of ${o.name}, by family of biomarkers`, xLabel: "", yLabel: "\u2212log\u2081\u2080 p", xBands: bands,
      xDomain: [-0.5, at + 0.5], yDomain: [0, padDomain(items.map((i) => i.y), 0.08, [0, (t.bonferroni ?? 1) * 1.15])[1]],
      marks: [...thresholdLines(t), { type: "points", items }],
      legend: [{ label: "positive association", shape: "triangle", color: "var(--soft)" }, { label: "negative", shape: "down", color: "var(--soft)" }],
    });
  });
  toolbar(figure, plot, () => associationCsv(shown));
};

builders.qq = (figure, host) => {
  const plot = new XYPlot(figure, host);
  let shown = [];
  shared.on(() => {
    const { filtered } = shared.current(), o = shared.outcome(), s = shared.state;
    shown = filtered.filter((r) => finite(r.nlp)).sort((a, b) => b.nlp - a.nlp);
    const n = shown.length, xs = [], lo = [], hi = [];
    // Order statistics of n uniform p values follow Beta(i, n - i + 1); its quantiles by the Wilson-Hilferty-like normal approximation on the logit.
    const items = shown.map((r, i) => {
      const x = -Math.log10((i + 0.5) / n), m = (i + 1) / (n + 1), sd = Math.sqrt((m * (1 - m)) / (n + 2)) / (m * (1 - m));
      const q = (z) => -Math.log10(1 / (1 + Math.exp(-(Math.log(m / (1 - m)) + z * sd))));
      xs.push(x); lo.push(q(1.96)); hi.push(q(-1.96));
      return { x, y: r.nlp, color: familyColor(r.family), shape: familyShape(r.family), tip: associationTip(r, o), choose: choose(r.biomarker), chosen: s.chosen === r.biomarker, r: s.chosen === r.biomarker ? 6.5 : 4 };
    });
    const top = xs.length ? xs[0] * 1.05 : 1;
    plot.set({
      key: s.outcome + s.set + s.family + s.query, label: `QQ plot of ${o.name}, ${n} tests`, xLabel: "expected \u2212log\u2081\u2080 p under no association", yLabel: "observed \u2212log\u2081\u2080 p", xDomain: [0, top], yDomain: [0, padDomain(items.map((i) => i.y), 0.06, [0, top])[1]],
      marks: [{ type: "band", xs, lo, hi, color: "var(--band)" }, { type: "line", xs: [0, top], ys: [0, top], color: "var(--soft)" }, { type: "points", items }], legend: familyLegend(shown),
    });
  });
  toolbar(figure, plot, () => associationCsv(shown));
};

tables.associations = (node, host) => {
  const o = () => shared.outcome();
  const col = (key, label, num, text, value, title) => ({ key, label, num, text, value, title });
  const table = new DataTable(host, [
    col("biomarker", "Biomarker", false, marked, (r) => r.biomarker),
    col("family", "Family", false, (r) => r.family, (r) => r.family),
    { ...col("estimate", "Estimate (CI)", true, (r) => estimateText(r, o().ratio), (r) => r.est, "Ratio per SD for logit and Cox models, slope per SD for linear ones"), raw: (r) => (finite(r.est) ? (o().ratio ? Math.exp(r.est) : r.est) : null) },
    col("neg_log10_p", "p", true, (r) => fmtP(r.nlp), (r) => r.nlp),
    col("neg_log10_q", "q", true, (r) => fmtP(r.nlq), (r) => r.nlq, "p corrected within the family of tests"),
    col("n", "n", true, (r) => fmtCount(r.n), (r) => r.n),
    col("n_cases", "Cases", true, (r) => fmtCount(r.cases), (r) => r.cases),
    col("n_clusters", shared.meta.clusters[0].toUpperCase() + shared.meta.clusters.slice(1), true, (r) => fmtCount(r.clusters), (r) => r.clusters),
    { ...col("note", "Remarks", false, (r) => r.note || "", (r) => r.note, "Scale other than the biomarker itself, circularity, weak heads, and why there is no estimate"), cls: "remark" },
    col("model", "Model", false, (r) => r.model || "\u2013", (r) => r.model),
  ], { name: node.dataset.name, label: "All tests of the chosen outcome and covariate set", onRow: (r) => choose(r.biomarker)(), sort: { i: 3, dir: -1 } });
  shared.on(() => table.set(shared.current().filtered));
};
