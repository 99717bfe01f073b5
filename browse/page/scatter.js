// A scatter plot of up to 100,000 latents, drawn into ImageData: no WebGL.
"use strict";

(() => {
  const { h, format } = videoSae;
  const PAD = { left: 44, right: 12, top: 10, bottom: 30 };
  const NEAR_PX = 9;

  // options: {onopen(row), onzoom({x: [low, high], y: [low, high]}), tip(row) -> node, rowOf}
  videoSae.scatter = (options) => {
    const canvas = h("canvas", { class: "scatter-canvas", tabindex: "-1", role: "img" });
    const over = h("canvas", { class: "scatter-over", "aria-hidden": "true" });
    const tip = h("div", { class: "tip", hidden: true });
    const root = h("div", { class: "scatter" }, canvas, over, tip);
    let shown = null, drag = null, marked = -1, hovered = -1;

    const observer = new ResizeObserver(() => draw());
    observer.observe(root);

    function size() { return { width: root.clientWidth, height: root.clientHeight, ratio: Math.min(window.devicePixelRatio || 1, 2) }; }

    // data: {x, y: number columns, rows: Uint32Array of shown rows, kind: dict column or null, colours: [css], xName, yName, log: {x, y}}
    function show(data) {
      shown = data;
      shown.range = { x: rangeOf(data.x, data.log.x), y: rangeOf(data.y, data.log.y) };
      canvas.setAttribute("aria-label", `${data.yName} against ${data.xName}: ${format.count(data.rows.length, "latent")}. The table holds the same latents.`);
      draw();
    }

    function rangeOf(column, log) {
      let low = Infinity, high = -Infinity;
      const { values } = column;
      for (let i = 0; i < values.length; i++) {
        const v = log ? (values[i] > 0 ? Math.log10(values[i]) : NaN) : values[i];
        if (v < low) low = v;
        if (v > high) high = v;
      }
      if (!(low <= high)) return { low: 0, high: 1, log };
      const pad = (high - low || 1) * 0.03;
      return { low: low - pad, high: high + pad, log };
    }

    function scales() {
      const { width, height } = size(), { x, y } = shown.range;
      const w = width - PAD.left - PAD.right, t = height - PAD.top - PAD.bottom;
      const place = (v, range) => ((range.log ? (v > 0 ? Math.log10(v) : NaN) : v) - range.low) / (range.high - range.low);
      const back = (share, range) => { const v = range.low + share * (range.high - range.low); return range.log ? 10 ** v : v; };
      return {
        px: (v) => PAD.left + place(v, x) * w, py: (v) => PAD.top + (1 - place(v, y)) * t,
        vx: (p) => back((p - PAD.left) / w, x), vy: (p) => back(1 - (p - PAD.top) / t, y), w, t,
      };
    }

    function draw() {
      const { width, height, ratio } = size();
      if (!shown || width < 80 || height < 80) return;
      for (const one of [canvas, over]) { one.width = Math.round(width * ratio); one.height = Math.round(height * ratio); }
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.scale(ratio, ratio);
      context.fillStyle = videoSae.token("--panel");
      context.fillRect(0, 0, width, height);
      const at = scales();
      drawAxes(context, at, width, height);
      drawPoints(context, at, ratio);
      drawMark();
    }

    function drawAxes(context, at, width, height) {
      context.font = `11px ${videoSae.token("--font")}`;
      context.strokeStyle = videoSae.token("--rule-soft");
      context.fillStyle = videoSae.token("--quiet");
      context.lineWidth = 1;
      context.textAlign = "center";
      for (const v of ticks(shown.range.x, at.w / 70)) {
        const x = Math.round(at.px(v)) + 0.5;
        context.beginPath(); context.moveTo(x, PAD.top); context.lineTo(x, height - PAD.bottom); context.stroke();
        context.fillText(tickText(v), x, height - PAD.bottom + 13);
      }
      context.textAlign = "right";
      for (const v of ticks(shown.range.y, at.t / 44)) {
        const y = Math.round(at.py(v)) + 0.5;
        context.beginPath(); context.moveTo(PAD.left, y); context.lineTo(width - PAD.right, y); context.stroke();
        context.fillText(tickText(v), PAD.left - 5, y + 3.5);
      }
      context.fillText(shown.xName + " →", width - PAD.right, height - 4);
      context.textAlign = "left";
      context.fillText("↑ " + shown.yName, PAD.left + 4, PAD.top + 10);
    }

    // Points are small squares whose opacity adds up, so that a crowd is darker than a single one.
    function drawPoints(context, at, ratio) {
      const W = context.canvas.width, H = context.canvas.height;
      const image = context.getImageData(0, 0, W, H), data = image.data;
      const { rows, x, y, kind, colours } = shown;
      const rgb = colours.map(channels), n = rows.length;
      const alpha = n > 20000 ? 0.35 : n > 3000 ? 0.55 : 0.8;
      const half = (n > 20000 ? 1 : n > 3000 ? 1.5 : 2.2) * ratio;
      for (let i = n - 1; i >= 0; i--) {
        const row = rows[i], cx = at.px(x.values[row]) * ratio, cy = at.py(y.values[row]) * ratio;
        if (!(cx > 0 && cy > 0 && cx < W && cy < H)) continue;
        const colour = rgb[kind ? kind.index[row] + 1 : 0] || rgb[0];
        const x0 = Math.max(0, Math.round(cx - half)), x1 = Math.min(W, Math.max(x0 + 1, Math.round(cx + half)));
        const y0 = Math.max(0, Math.round(cy - half)), y1 = Math.min(H, Math.max(y0 + 1, Math.round(cy + half)));
        for (let py = y0; py < y1; py++) {
          for (let px = x0; px < x1; px++) {
            const p = 4 * (py * W + px);
            data[p] += (colour[0] - data[p]) * alpha;
            data[p + 1] += (colour[1] - data[p + 1]) * alpha;
            data[p + 2] += (colour[2] - data[p + 2]) * alpha;
          }
        }
      }
      context.putImageData(image, 0, 0);
    }

    function drawMark() {
      const { width, height, ratio } = size(), context = over.getContext("2d");
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      if (!shown) return;
      const at = scales();
      context.lineWidth = 2;
      for (const [row, colour] of [[marked, videoSae.token("--accent")], [hovered, videoSae.token("--ink")]]) {
        if (row < 0) continue;
        const x = at.px(shown.x.values[row]), y = at.py(shown.y.values[row]);
        if (!Number.isFinite(x + y)) continue;
        context.strokeStyle = colour;
        context.beginPath(); context.arc(x, y, 6, 0, 7); context.stroke();
      }
      if (drag && drag.moved) {
        context.fillStyle = videoSae.token("--accent-soft");
        context.strokeStyle = videoSae.token("--accent");
        context.lineWidth = 1;
        context.globalAlpha = 0.5;
        context.fillRect(drag.x, drag.y, drag.toX - drag.x, drag.toY - drag.y);
        context.globalAlpha = 1;
        context.strokeRect(drag.x, drag.y, drag.toX - drag.x, drag.toY - drag.y);
      }
    }

    function nearest(px, py) {
      if (!shown) return -1;
      const at = scales();
      let best = NEAR_PX * NEAR_PX, found = -1;
      for (let i = 0; i < shown.rows.length; i++) {
        const row = shown.rows[i], dx = at.px(shown.x.values[row]) - px, dy = at.py(shown.y.values[row]) - py;
        const d = dx * dx + dy * dy;
        if (d < best) { best = d; found = row; }
      }
      return found;
    }

    const point = (event) => { const box = root.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };

    root.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      const [x, y] = point(event);
      drag = { x, y, toX: x, toY: y, moved: false };
      root.setPointerCapture(event.pointerId);
    });
    root.addEventListener("pointermove", (event) => {
      const [x, y] = point(event);
      if (drag) {
        drag.toX = x; drag.toY = y;
        drag.moved ||= Math.hypot(x - drag.x, y - drag.y) > 5;
        drawMark();
        if (drag.moved) { tip.hidden = true; return; }
      }
      const row = nearest(x, y);
      if (row !== hovered) { hovered = row; drawMark(); if (row >= 0) tip.replaceChildren(options.tip(row)); }
      tip.hidden = row < 0;
      if (row >= 0) {
        const { width, height } = size();
        tip.style.left = `${Math.max(4, Math.min(x + 14, width - tip.offsetWidth - 4))}px`;
        tip.style.top = `${Math.max(4, y + 14 + tip.offsetHeight > height ? y - tip.offsetHeight - 10 : y + 14)}px`;
      }
    });
    root.addEventListener("pointerup", (event) => {
      const ended = drag;
      drag = null;
      if (!ended) return;
      if (ended.moved) {
        const at = scales(), xs = [ended.x, ended.toX].map(at.vx).sort((a, b) => a - b), ys = [ended.y, ended.toY].map(at.vy).sort((a, b) => a - b);
        options.onzoom({ x: xs, y: ys });
      } else {
        const row = nearest(...point(event));
        if (row >= 0) options.onopen(row);
      }
      drawMark();
    });
    root.addEventListener("pointerleave", () => { hovered = -1; tip.hidden = true; drawMark(); });

    return { root, show, redraw: draw, mark: (row) => { marked = row; drawMark(); }, destroy: () => observer.disconnect() };
  };

  function ticks(range, wanted) {
    if (range.log) {
      const made = [], step = Math.max(1, Math.ceil((range.high - range.low) / Math.max(wanted, 1)));
      for (let power = Math.ceil(range.low); power <= range.high; power += step) made.push(10 ** power);
      return made;
    }
    const raw = (range.high - range.low) / Math.max(wanted, 2), power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw), made = [];
    for (let v = Math.ceil(range.low / step); v * step <= range.high; v++) made.push(Number((v * step).toPrecision(12)));
    return made;
  }

  const tickText = (v) => (v !== 0 && Math.abs(v) < 0.001 ? format.number(v).replace("1.0e", "1e") : String(Number(v.toPrecision(6))).replace("-", "−"));

  function channels(css) {
    const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    probe.fillStyle = css;
    probe.fillRect(0, 0, 1, 1);
    return probe.getImageData(0, 0, 1, 1).data;
  }
})();
