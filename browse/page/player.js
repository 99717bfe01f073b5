// A clip that plays with the latent's heat and the tracks' boxes on it; a still where there is no clip.
"use strict";

(() => {
  const { h, format } = videoSae;
  const remembered = { heat: true, boxes: true, loop: "moment", rate: 1 };

  // options: {label, compact: bool, ontime(seconds)}. show() takes what is played.
  videoSae.player = (options = {}) => {
    const film = h("video", { playsinline: true, muted: true, preload: "auto", "aria-label": options.label || "Clip", tabindex: "-1" });
    const still = h("img", { alt: "", hidden: true });
    const over = h("canvas", { class: "marks", "aria-hidden": "true" });
    const notice = h("div", { class: "film-notice", hidden: true });
    const stage = h("div", { class: "stage waiting" }, film, still, over, notice);
    const clock = h("span", { class: "clock" });
    const playButton = videoSae.iconButton("play", "Play", toggle, { "data-action": "play" });
    const toggles = {
      heat: h("button", { type: "button", class: "mini", title: "Heat map of patches (h)", onclick: () => flip("heat") }, "Heat"),
      boxes: h("button", { type: "button", class: "mini", title: "Boxes of tracks (b)", onclick: () => flip("boxes") }, "Boxes"),
    };
    const loop = h("select", { class: "mini", "aria-label": "What plays", onchange: () => { remembered.loop = loop.value; } },
      h("option", { value: "moment" }, "moment"), h("option", { value: "clip" }, "whole clip"));
    const rate = h("select", { class: "mini", "aria-label": "Speed", onchange: () => { remembered.rate = Number(rate.value); film.playbackRate = remembered.rate; } },
      [0.25, 0.5, 1, 2].map((value) => h("option", { value, selected: value === remembered.rate }, `${value}×`)));
    const line = videoSae.timeline({ label: `Time in ${options.label || "the clip"}`, onseek: seek });
    const controls = h("div", { class: "controls" },
      videoSae.iconButton("back", "One frame back (←)", () => stepFrames(-1)), playButton, videoSae.iconButton("forward", "One frame on (→)", () => stepFrames(1)),
      clock, h("span", { class: "spring" }), options.noLoop ? null : loop, rate, toggles.heat, toggles.boxes);
    const root = h("div", { class: options.compact ? "player compact" : "player" }, stage, controls, line.root);
    let shown = null, drawn = null, frame_s = 1 / 30, raf = 0, alive = true, wanted = null, patience = null;
    const observer = new ResizeObserver(() => draw(now()));
    observer.observe(stage);
    refreshToggles();

    // what: {video: shard object, heat, perFrame, peak, moment, clip, still, start_s, autoplay, width, height}
    function show(what) {
      shown = what;
      const { video } = what, duration_s = what.duration_s || video.grid.spans_s.at(-1)[1];
      frame_s = 1 / (video.frame_rate || 30);
      line.show({ duration_s, grid: video.grid, perFrame: what.perFrame, peak: what.peak, actions: video.actions, sounds: video.sounds, moment: what.moment });
      loop.hidden = !what.moment;
      loop.value = remembered.loop;
      notice.hidden = true;
      wanted = what.start_s ?? what.moment?.start_s ?? 0;
      const path = what.clip;
      if (path) {
        if (film.getAttribute("src") !== path) { film.src = path; stage.classList.add("waiting"); beginToWait(); }
        else if (film.readyState >= 1) ready();
        film.hidden = false;
        stage.classList.remove("pictures");
        still.hidden = !what.still; // until the clip is there
        if (what.still) still.src = what.still;
      } else withoutClip("This run has no clip here: the pictures are what there is.");
      drawn = null;
      draw(film.readyState >= 1 && wanted !== null ? wanted : now());
    }

    // A clip is made when it is first looked at, which may take a second or two.
    function beginToWait() {
      clearTimeout(patience);
      patience = setTimeout(() => { if (stage.classList.contains("waiting")) { notice.textContent = "Preparing the clip …"; notice.hidden = false; } }, 400);
    }

    function withoutClip(reason) {
      clearTimeout(patience);
      film.hidden = true;
      film.removeAttribute("src");
      film.load();
      stage.classList.remove("waiting");
      stage.classList.add("pictures");
      still.hidden = !shown.still;
      if (shown.still) still.src = shown.still;
      else stage.classList.add("blank");
      notice.textContent = shown.still ? reason : `${reason} The grid shows where the latent fires.`;
      notice.hidden = false;
      playButton.disabled = true;
    }

    function ready() {
      stage.classList.remove("blank");
      if (film.readyState >= 2) stage.classList.remove("waiting");
      stage.style.setProperty("--ratio", `${film.videoWidth} / ${film.videoHeight}`);
      playButton.disabled = false;
      film.playbackRate = remembered.rate;
      rate.value = String(remembered.rate);
      if (Number.isFinite(film.duration) && shown && !shown.duration_s) {
        line.show({ duration_s: film.duration, grid: shown.video.grid, perFrame: shown.perFrame, peak: shown.peak, actions: shown.video.actions, sounds: shown.video.sounds, moment: shown.moment });
      }
      if (wanted !== null) { film.currentTime = nudge(wanted); wanted = null; }
      if (shown?.autoplay && !matchMedia("(prefers-reduced-motion: reduce)").matches) film.play().catch(() => {});
    }

    // Just inside a frame: a time on its very edge may show the one before.
    const nudge = (seconds) => Math.max(0, seconds) + frame_s * 0.05;

    film.addEventListener("loadedmetadata", ready);
    film.addEventListener("loadeddata", () => { stage.classList.remove("waiting"); clearTimeout(patience); notice.hidden = true; });
    film.addEventListener("error", () => { if (shown && film.getAttribute("src")) withoutClip("This clip cannot be played here."); });
    still.addEventListener("load", () => { stage.classList.remove("blank"); if (film.hidden || film.readyState < 1) stage.style.setProperty("--ratio", `${still.naturalWidth} / ${still.naturalHeight}`); draw(now()); });
    still.addEventListener("error", () => { still.hidden = true; if (film.hidden) stage.classList.add("blank"); });
    film.addEventListener("play", () => { swap("pause", "Pause"); tick(); });
    film.addEventListener("pause", () => swap("play", "Play"));
    film.addEventListener("seeked", () => { draw(film.currentTime); options.ontime?.(film.currentTime); });
    film.addEventListener("ended", () => { film.currentTime = nudge(bounds()[0]); film.play().catch(() => {}); });

    function swap(icon, label) {
      playButton.replaceChildren(videoSae.icon(icon));
      playButton.setAttribute("aria-label", label);
      playButton.title = label;
    }

    const bounds = () => (shown?.moment && remembered.loop === "moment" && !options.noLoop ? [shown.moment.start_s, shown.moment.stop_s] : [0, Infinity]);
    const now = () => (film.hidden || !film.getAttribute("src") || film.readyState < 1 ? stillTime() : film.currentTime);
    const stillTime = () => (shown ? (shown.moment ? (shown.video.grid.spans_s[shown.moment.peak.t] || [0])[0] : shown.start_s || 0) : 0);

    // While it plays, marks follow the frame that is on the screen.
    function tick() {
      if (!alive || film.paused) return;
      const next = (_, meta) => {
        const time = meta ? meta.mediaTime : film.currentTime;
        const [from, to] = bounds();
        if (!film.paused && (time >= to - frame_s / 2 || time < from - 2 * frame_s)) film.currentTime = nudge(from);
        draw(time);
        options.ontime?.(time);
        tick();
      };
      if (film.requestVideoFrameCallback) raf = film.requestVideoFrameCallback(next);
      else raf = requestAnimationFrame(() => next(0, null));
    }

    function draw(time) {
      if (!shown) return;
      const width = stage.clientWidth, height = stage.clientHeight;
      if (width < 4 || height < 4) return;
      const ratio = window.devicePixelRatio || 1, w = Math.round(width * ratio), t = Math.round(height * ratio);
      if (over.width !== w || over.height !== t) { over.width = w; over.height = t; drawn = null; }
      const step = videoSae.stepAt(shown.video.grid, time);
      const heat = remembered.heat && shown.heat ? videoSae.heatAt(shown.heat, shown.video.grid, step) : [];
      const boxes = remembered.boxes ? videoSae.boxesAt(shown.video.tracks, time) : [];
      const key = `${step} ${remembered.heat} ${boxes.map(({ box, label }) => label + box).join()}`;
      if (key !== drawn) { drawn = key; videoSae.drawMarks(over.getContext("2d"), { heat, boxes, names: !options.compact || width > 240 }); }
      line.at(time);
      clock.textContent = `${format.seconds(time)} · step ${step + 1} of ${shown.video.grid.spans_s.length}`;
    }

    function toggle() {
      if (film.hidden) return;
      if (film.paused) film.play().catch((error) => { notice.textContent = error.message; notice.hidden = false; });
      else film.pause();
    }
    function seek(time) {
      if (film.hidden || !film.getAttribute("src")) { draw(time); return; }
      film.currentTime = Math.min(nudge(time), Math.max(0, (film.duration || Infinity) - frame_s / 2));
    }
    function stepFrames(n) { film.pause(); seek((Math.floor(now() / frame_s + 1e-3) + n) * frame_s); }
    function stepModel(n) {
      film.pause();
      const { spans_s } = shown.video.grid, to = Math.max(0, Math.min(spans_s.length - 1, videoSae.stepAt(shown.video.grid, now()) + n));
      seek(spans_s[to][0]);
    }
    function flip(which) { remembered[which] = !remembered[which]; refreshToggles(); drawn = null; draw(now()); }
    function refreshToggles() { for (const [name, button] of Object.entries(toggles)) button.setAttribute("aria-pressed", String(remembered[name])); }

    function keys(event) {
      if (!shown) return false;
      if (event.key === " ") toggle();
      else if (event.key === "ArrowRight") (event.shiftKey ? stepModel : stepFrames)(1);
      else if (event.key === "ArrowLeft") (event.shiftKey ? stepModel : stepFrames)(-1);
      else if (event.key === "h") flip("heat");
      else if (event.key === "b") flip("boxes");
      else return false;
      return true;
    }

    return {
      root, show, keys, seek, draw: () => { drawn = null; draw(now()); line.redraw(); }, pause: () => film.pause(), film, over,
      get time() { return now(); },
      setHeat: (heat, perFrame, peak) => { Object.assign(shown, { heat, perFrame, peak }); drawn = null; line.show({ duration_s: Number.isFinite(film.duration) ? film.duration : shown.video.grid.spans_s.at(-1)[1], grid: shown.video.grid, perFrame, peak, actions: shown.video.actions, sounds: shown.video.sounds, moment: shown.moment }); draw(now()); },
      destroy: () => { alive = false; clearTimeout(patience); film.pause(); film.removeAttribute("src"); film.load(); observer.disconnect(); line.destroy(); if (film.cancelVideoFrameCallback) film.cancelVideoFrameCallback(raf); else cancelAnimationFrame(raf); },
    };
  };

  // A moment as a small picture: the still with the heat at its peak. Its marks are drawn when it comes into sight.
  videoSae.tile = (moment, { onclick, label, title }) => {
    const picture = moment.still ? h("img", { src: moment.still, alt: "", loading: "lazy", decoding: "async" }) : null;
    const over = h("canvas", { class: "marks", "aria-hidden": "true" });
    const root = h("button", { type: "button", class: picture ? "tile" : "tile blank", "aria-label": label, title: title || label, onclick }, picture, over);
    if (picture) {
      picture.addEventListener("error", () => { picture.remove(); root.classList.add("blank"); });
      picture.addEventListener("load", () => root.style.setProperty("--ratio", `${picture.naturalWidth} / ${picture.naturalHeight}`));
    }
    seen.observe(root);
    root.paint = async () => {
      const video = await videoSae.video(moment.video);
      if (!video) return;
      const ratio = Math.min(window.devicePixelRatio || 1, 2);
      over.width = Math.round(root.clientWidth * ratio);
      over.height = Math.round(root.clientHeight * ratio);
      videoSae.drawMarks(over.getContext("2d"), { heat: videoSae.heatAt(moment.heat, video.grid, moment.peak.t), boxes: [] });
    };
    return root;
  };
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); entry.target.paint(); }
  }, { rootMargin: "200px" });
})();
