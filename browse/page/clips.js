// Time and place in a clip: which time step is shown at a second, which boxes, which patches.
"use strict";

(() => {
  const EPSILON_S = 1e-4;
  const videos = new Map();

  // The shard of a video as an object, or null: {id, grid, tracks, actions, sounds, questions, clip}.
  videoSae.video = async (id) => {
    if (!videos.has(id)) {
      const shard = await videoSae.load(`video/${await videoSae.videoKey(id)}`);
      if (!shard?.meta.grid) return null;
      videos.set(id, shard.meta);
    }
    return videos.get(id);
  };

  // The name of a video in shards: the run's table says it; ids may be too long for a file's name.
  let keys = null;
  videoSae.videoKey = async (id) => {
    if (!keys) {
      const table = await videoSae.load("videos");
      keys = new Map(table?.has("key") ? table.get("id").values.map((one, i) => [one, table.get("key").values[i]]) : []);
    }
    return keys.get(id) ?? videoSae.fileId(id);
  };

  // The time step of a clip at a second: the last that has begun; the first before any has.
  videoSae.stepAt = (grid, time_s) => {
    const spans = grid.spans_s;
    let low = 0, high = spans.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (spans[middle][0] <= time_s + EPSILON_S) low = middle;
      else high = middle - 1;
    }
    return low;
  };

  // Boxes of the tracks at a second: [{id, label, box, masked}]. An annotated box holds until the next one, but not
  // longer than one and a half times the usual gap: after that the object is gone.
  videoSae.boxesAt = (tracks, time_s) => {
    const made = [];
    for (const track of tracks || []) {
      const { boxes } = track;
      if (!boxes.length) continue;
      let low = -1, high = boxes.length - 1;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (boxes[middle][0] <= time_s + EPSILON_S) low = middle;
        else high = middle - 1;
      }
      if (low < 0) continue;
      const [at, x1, y1, x2, y2, masked] = boxes[low];
      if (time_s - at > 1.5 * usualGap(track) + EPSILON_S) continue;
      made.push({ id: track.id, label: track.label, box: [x1, y1, x2, y2], masked: Boolean(masked) });
    }
    return made;
  };

  function usualGap(track) {
    if (track.gap === undefined) {
      const gaps = track.boxes.slice(1).map((box, i) => box[0] - track.boxes[i][0]).sort((a, b) => a - b);
      track.gap = gaps.length ? gaps[gaps.length >> 1] : Infinity;
    }
    return track.gap;
  }

  // Patches with their heat at a time step: [{box, value}], value 0 … 255.
  videoSae.heatAt = (heat, grid, step) => {
    const made = [];
    if (!heat?.t) return made;
    for (let i = 0; i < heat.t.length; i++) {
      if (heat.t[i] === step && heat.value[i] > 0) made.push({ box: grid.patch_boxes[heat.token[i]], value: heat.value[i], token: heat.token[i] });
    }
    return made;
  };

  // A normalised box on a canvas, with edges at whole pixels: [left, top, right, bottom].
  videoSae.pixels = ([x1, y1, x2, y2], width, height) =>
    [Math.round(x1 * width), Math.round(y1 * height), Math.round(x2 * width), Math.round(y2 * height)];

  // Draw patches and boxes onto a canvas that covers the frame. marks: {heat: [{box, value}], boxes, opacity, scale}
  videoSae.drawMarks = (context, marks) => {
    const { width, height } = context.canvas, line = Math.max(2, Math.round(width / 240));
    context.clearRect(0, 0, width, height);
    const rgb = "255 106 0";
    for (const { box, value } of marks.heat || []) {
      const [left, top, right, bottom] = videoSae.pixels(box, width, height);
      context.fillStyle = `rgb(${rgb} / ${(0.1 + 0.6 * (value / 255)) * (marks.opacity ?? 1)})`;
      context.fillRect(left, top, right - left, bottom - top);
    }
    for (const { box, label, id, masked } of marks.boxes || []) {
      const [left, top, right, bottom] = videoSae.pixels(box, width, height);
      frame(context, left, top, right, bottom, line, masked);
      if (marks.names !== false) tagOf(context, `${id === undefined || id === null ? "" : id + " "}${label}`, left, top, line);
    }
  };

  // A frame whose outer edge is the box's own.
  function frame(context, left, top, right, bottom, line, dashed) {
    context.fillStyle = "#00d0e6";
    const w = right - left, h = bottom - top;
    if (!dashed) {
      context.fillRect(left, top, w, line); context.fillRect(left, bottom - line, w, line);
      context.fillRect(left, top, line, h); context.fillRect(right - line, top, line, h);
      return;
    }
    context.strokeStyle = "#00d0e6";
    context.lineWidth = line;
    context.setLineDash([line * 3, line * 2]);
    context.strokeRect(left + line / 2, top + line / 2, w - line, h - line);
    context.setLineDash([]);
  }

  function tagOf(context, text, left, top, line) {
    const size = Math.max(11, line * 5.5), { width } = context.canvas;
    context.font = `600 ${size}px ${videoSae.token("--font")}`;
    const short = text.length > 28 ? text.slice(0, 27) + "…" : text, wide = context.measureText(short).width + size * 0.6;
    const x = Math.max(0, Math.min(left, width - wide)), y = top - size * 1.35 >= 0 ? top - size * 1.35 : top + line;
    context.fillStyle = "rgb(0 40 48 / .82)";
    context.fillRect(x, y, wide, size * 1.35);
    context.fillStyle = "#eafcff";
    context.fillText(short, x + size * 0.3, y + size * 1.02);
  }
})();
