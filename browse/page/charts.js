// Charts: intervals on a common scale (SVG, coloured by the style sheet), histograms and dose-response (uPlot).
"use strict";

(() => {
  const { h, svg, format } = videoSae;

  // An interval with its point on a scale: {low, high, point, from, to, marks: [{at, title, kind}], zero}.
  videoSae.whisker = ({ low, high, point, from, to, marks = [], zero = null, tone = "" }) => {
    const W = 150, H = 18, x = (v) => 4 + ((Math.max(from, Math.min(to, v)) - from) / (to - from || 1)) * (W - 8);
    const ok = (v) => v !== null && v !== undefined && Number.isFinite(v);
    const text = `${format.number(point)}${ok(low) && ok(high) ? `, interval ${format.interval(low, high)}` : ""}`;
    return svg("svg", { class: `whisker ${tone}`, viewBox: `0 0 ${W} ${H}`, width: W, height: H, role: "img", "aria-label": text },
      svg("line", { class: "scale", x1: 4, x2: W - 4, y1: H / 2, y2: H / 2 }),
      zero !== null && zero >= from && zero <= to ? svg("line", { class: "zero", x1: x(zero), x2: x(zero), y1: 1, y2: H - 1 }) : null,
      marks.filter((mark) => ok(mark.at)).map((mark) => svg("line", { class: `mark ${mark.kind}`, x1: x(mark.at), x2: x(mark.at), y1: 3, y2: H - 3 }, svg("title", {}, `${mark.title}: ${format.number(mark.at)}`))),
      ok(low) && ok(high) ? svg("line", { class: "range", x1: x(low), x2: x(high), y1: H / 2, y2: H / 2 }) : null,
      ok(point) ? svg("circle", { class: "point", cx: x(point), cy: H / 2, r: 3.6 }) : null,
      svg("title", {}, text));
  };

  // The ends and the middle of the scale of a column of whiskers, for its head.
  videoSae.scaleHead = (from, middle, to) => h("span", { class: "scale-head" }, h("span", {}, from), h("span", {}, middle), h("span", {}, to));

  // A share as a bar with its interval: 0 … 1.
  videoSae.shareBar = ({ share, low, high, marks = [] }) =>
    videoSae.whisker({ low, high, point: share, from: 0, to: 1, marks });

  // The mean activation at each place of the frame.
  videoSae.placeChart = (rows, grid) => {
    const n_row = Array.isArray(rows[0]) ? rows.length : grid.n_row, n_col = Array.isArray(rows[0]) ? rows[0].length : grid.n_col;
    const place = rows.flat();
    const most = Math.max(...place, 1e-12), size = Math.min(24, 180 / Math.max(n_row, n_col));
    return svg("svg", { class: "place", viewBox: `0 0 ${n_col * size} ${n_row * size}`, role: "img", "aria-label": `Mean activation at each of ${n_row} × ${n_col} places; the largest is ${format.number(most)}` },
      place.map((value, i) => svg("rect", {
        x: (i % n_col) * size + 0.5, y: Math.floor(i / n_col) * size + 0.5, width: size - 1, height: size - 1, class: "heat-cell", "fill-opacity": (0.04 + 0.96 * Math.max(0, value / most)).toFixed(3),
      }, svg("title", {}, `row ${Math.floor(i / n_col) + 1}, column ${(i % n_col) + 1}: ${format.number(value)}`))));
  };

  // The mean activation over the clip, from its start to its end.
  videoSae.timeChart = (bins) => {
    const values = bins.filter((v) => v !== null); // bins that no time step falls into
    const W = 180, H = 54, most = Math.max(...values, 1e-12), wide = W / values.length;
    return svg("svg", { class: "time-chart", viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", role: "img", "aria-label": `Mean activation from the start to the end of clips: ${values.map((v) => format.number(v)).join(", ")}` },
      values.map((value, i) => svg("rect", { class: "bar", x: i * wide + 0.5, width: Math.max(0.5, wide - 1), y: H - (Math.max(0, value) / most) * H, height: (Math.max(0, value) / most) * H }, svg("title", {}, format.number(value)))));
  };

  const axes = (x, y) => [
    { stroke: videoSae.token("--quiet"), grid: { stroke: videoSae.token("--rule-soft"), width: 1 }, ticks: { stroke: videoSae.token("--rule"), width: 1, size: 4 }, font: `11px ${videoSae.token("--font")}`, label: x, labelFont: `11px ${videoSae.token("--font")}`, labelSize: 18, size: 26, values: (_, ticks) => ticks.map(tick) },
    { stroke: videoSae.token("--quiet"), grid: { stroke: videoSae.token("--rule-soft"), width: 1 }, ticks: { show: false }, font: `11px ${videoSae.token("--font")}`, label: y, labelFont: `11px ${videoSae.token("--font")}`, labelSize: 18, size: 46, values: (_, ticks) => ticks.map(tick) },
  ];
  const tick = (v) => (v === null ? "" : Math.abs(v) >= 1000 ? `${Number((v / 1000).toPrecision(3))}k` : String(Number(v.toPrecision(4))).replace("-", "−"));

  // A uPlot that is as wide as its place, described in words for those who cannot see it.
  function plotted(label, height, make) {
    const root = h("div", { class: "chart", role: "img", "aria-label": label });
    let plot = null;
    const draw = () => {
      const width = root.clientWidth;
      if (width < 60) return;
      const tall = root.closest(".panel.full") ? Math.max(height, window.innerHeight - 220) : height;
      plot?.destroy();
      plot = make(root, { width, height: tall });
    };
    let last = 0;
    const observer = new ResizeObserver(() => { if (Math.abs(root.clientWidth - last) > 1) { last = root.clientWidth; draw(); } });
    observer.observe(root);
    root.theme = draw;
    root.destroy = () => { observer.disconnect(); plot?.destroy(); };
    return root;
  }

  // How often the latent fires how strongly; the counts are logarithmic, so that the rare strong ones can be seen.
  videoSae.histogram = ({ edges, counts }) =>
    plotted(`Histogram of the latent's activation from ${format.number(edges[0])} to ${format.number(edges.at(-1))}; ${format.number(counts.reduce((a, b) => a + b, 0))} tokens`, 170, (root, size) =>
      new uPlot({
        ...size, legend: { show: false }, cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
        scales: { x: { time: false, range: [edges[0], edges.at(-1)] }, y: { distr: 3, log: 10, range: (_, low, high) => [0.5, Math.max(10, high * 1.5)] } },
        axes: axes("activation", "tokens"),
        series: [{}, { stroke: videoSae.token("--accent"), fill: videoSae.token("--accent-soft"), width: 1, points: { show: false }, paths: uPlot.paths.bars({ size: [1, 100], align: 1, gap: 1 }) }],
        hooks: { setCursor: [(u) => { const i = u.cursor.idx; root.title = i === null || i === undefined || counts[i] === undefined ? "" : `${format.number(edges[i])} … ${format.number(edges[i + 1])}: ${format.count(counts[i], "token")}`; }] },
      }, [edges.slice(0, -1), counts.map((n) => n || null)], root));

  // The answer's change against the strength of the edit, with its interval, over the band of matched controls.
  videoSae.doseChart = (doses, value = "delta_margin") => {
    const rows = [...doses].sort((a, b) => a.strength - b.strength), pick = (name) => rows.map((row) => row[name] ?? null);
    const words = rows.map((row) => `${format.number(row.strength)}: ${format.signed(row[value])}`).join("; ");
    return plotted(`Change of the answer by strength of the edit: ${words}`, 200, (root, size) => {
      const accent = videoSae.token("--accent"), quiet = videoSae.token("--quiet");
      const hidden = { stroke: "transparent", width: 0, points: { show: false } };
      return new uPlot({
        ...size, legend: { show: false }, cursor: { drag: { x: false, y: false } }, scales: { x: { time: false } }, axes: axes("strength of the edit", value === "delta_margin" ? "change of the margin" : "change of the expected count"),
        series: [{}, hidden, hidden, hidden, hidden, { stroke: accent, width: 2, points: { show: true, size: 7, fill: accent } }],
        bands: [{ series: [2, 1], fill: withAlpha(quiet, 0.22) }, { series: [4, 3], fill: withAlpha(accent, 0.18) }],
      }, [pick("strength"), pick("control_low"), pick("control_high"), pick("low"), pick("high"), pick(value)], root);
    });
  };

  const withAlpha = (hex, alpha) => {
    const n = parseInt(hex.slice(1), 16);
    return `rgb(${n >> 16} ${(n >> 8) & 255} ${n & 255} / ${alpha})`;
  };
})();
