// Below a clip: the latent's activation per time step, action and sound segments, and the frames that the model saw.
"use strict";

(() => {
  const { h } = videoSae;
  const LEFT = 8, RIGHT = 8, ACT_PX = 46, LANE_PX = 17, TICK_PX = 9, AXIS_PX = 17;
  const MOST_LANES = 5;

  // options: {onseek(seconds), label}
  videoSae.timeline = (options) => {
    const canvas = h("canvas", {
      class: "timeline", tabindex: "0", role: "slider", "aria-label": options.label || "Time in the clip", "aria-valuemin": "0",
      "aria-orientation": "horizontal",
    });
    let data = null, time = 0, height = 90;
    const observer = new ResizeObserver(() => draw());
    observer.observe(canvas);

    // data: {duration_s, grid, perFrame, peak, actions, sounds, moment: {start_s, stop_s} or null}
    function show(next) {
      data = next;
      data.lanes = [
        ...packed(data.actions || []).map((items) => ({ title: "actions", items })),
        ...packed(data.sounds || []).map((items) => ({ title: "sounds", items })),
      ].slice(0, MOST_LANES);
      height = (data.perFrame ? ACT_PX : 6) + data.lanes.length * LANE_PX + TICK_PX + AXIS_PX;
      canvas.style.height = `${height}px`;
      canvas.setAttribute("aria-valuemax", data.duration_s.toFixed(2));
      draw();
    }

    const x = (seconds, width) => LEFT + (seconds / (data.duration_s || 1)) * (width - LEFT - RIGHT);

    function draw() {
      const width = canvas.clientWidth;
      if (!data || width < 40) return;
      const ratio = window.devicePixelRatio || 1, c = canvas.getContext("2d");
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      c.setTransform(ratio, 0, 0, ratio, 0, 0);
      c.font = `11px ${videoSae.token("--font")}`;
      const ink = videoSae.token("--ink"), quiet = videoSae.token("--quiet"), accent = videoSae.token("--accent");
      if (data.moment) {
        c.fillStyle = videoSae.token("--accent-soft");
        const from = x(data.moment.start_s, width);
        c.fillRect(from, 0, Math.max(2, x(data.moment.stop_s, width) - from), height - AXIS_PX);
      }
      let y = 4;
      if (data.perFrame) { activation(c, width, y, accent); y += ACT_PX - 4; } else y += 2;
      for (const lane of data.lanes) { for (const item of lane.items) segment(c, item, width, y, lane.title === "sounds"); y += LANE_PX; }
      c.fillStyle = quiet;
      for (const at of data.grid.frame_s || data.grid.spans_s.map((span) => span[0])) c.fillRect(Math.round(x(at, width)), y + 2, 1.5, 5);
      y += TICK_PX;
      c.fillStyle = videoSae.token("--rule");
      c.fillRect(LEFT, y, width - LEFT - RIGHT, 1);
      c.fillStyle = quiet;
      c.textAlign = "center";
      const step = [0.5, 1, 2, 5, 10, 20, 60, 120].find((s) => (s / data.duration_s) * width > 52) || 300;
      for (let s = 0; s <= data.duration_s + 1e-6; s += step) {
        const text = `${Number(s.toFixed(1))} s`, wide = c.measureText(text).width / 2;
        c.fillText(text, Math.max(LEFT + wide, Math.min(width - RIGHT - wide, x(s, width))), y + 13);
      }
      const head = Math.round(x(time, width));
      c.fillStyle = ink;
      c.fillRect(head - 0.75, 0, 1.5, height - AXIS_PX);
      c.beginPath(); c.moveTo(head - 4.5, 0); c.lineTo(head + 4.5, 0); c.lineTo(head, 6); c.fill();
    }

    // Steps, since the model knows nothing finer: a filled outline over each step's span.
    function activation(c, width, top, accent) {
      const bottom = top + ACT_PX - 10, most = data.peak || Math.max(...data.perFrame, 1e-9);
      c.fillStyle = accent;
      c.globalAlpha = 0.75;
      data.perFrame.forEach((value, i) => {
        const span = data.grid.spans_s[i];
        if (!span || !(value > 0)) return;
        const from = x(span[0], width), to = x(data.grid.spans_s[i + 1]?.[0] ?? Math.max(span[1], span[0]), width);
        const tall = Math.max(1.5, (Math.min(1, value / most)) * (ACT_PX - 12));
        c.fillRect(from, bottom - tall, Math.max(2, to - from - 1), tall);
      });
      c.globalAlpha = 1;
      c.fillStyle = videoSae.token("--rule");
      c.fillRect(LEFT, bottom, width - LEFT - RIGHT, 1);
    }

    function segment(c, item, width, y, sound) {
      const from = x(item.start_s, width), to = Math.max(from + 3, x(item.stop_s, width));
      c.fillStyle = videoSae.token(`--hue-${videoSae.hue(item.label)}`);
      c.beginPath(); c.roundRect(from, y + 1, to - from - 1, LANE_PX - 3, 3); c.fill();
      c.save();
      c.beginPath(); c.rect(from, y, to - from - 3, LANE_PX); c.clip();
      c.fillStyle = videoSae.token("--hue-ink");
      c.textAlign = "left";
      c.fillText(`${sound ? "♪ " : ""}${item.label}`, from + 5, y + 12);
      c.restore();
    }

    const timeOf = (event) => {
      const box = canvas.getBoundingClientRect();
      return Math.max(0, Math.min(data.duration_s, ((event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT)) * data.duration_s));
    };
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); options.onseek(timeOf(event)); });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons & 1) options.onseek(timeOf(event));
      const item = data && itemAt(event);
      canvas.title = item ? `${item.label}, ${item.start_s.toFixed(2)}–${item.stop_s.toFixed(2)} s` : "";
    });
    function itemAt(event) {
      const at = timeOf(event), y = event.clientY - canvas.getBoundingClientRect().top - (data.perFrame ? ACT_PX : 6);
      return data.lanes[Math.floor(y / LANE_PX)]?.items.find((item) => item.start_s <= at && at <= item.stop_s);
    }

    return {
      root: canvas, show, redraw: draw, destroy: () => observer.disconnect(),
      at: (seconds) => {
        time = seconds;
        canvas.setAttribute("aria-valuenow", seconds.toFixed(2));
        canvas.setAttribute("aria-valuetext", `${seconds.toFixed(2)} seconds`);
        draw();
      },
    };
  };

  // Segments in as few lanes as they fit without covering each other.
  function packed(items) {
    const lanes = [];
    for (const item of [...items].sort((a, b) => a.start_s - b.start_s)) {
      const lane = lanes.find((one) => one.at(-1).stop_s <= item.start_s + 1e-6);
      if (lane) lane.push(item); else lanes.push([item]);
    }
    return lanes;
  }
  videoSae.packed = packed;
})();
