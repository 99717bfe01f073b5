// The frame of the page: header, navigation, theme, keys, and which view an address means.
"use strict";

(() => {
  const { h } = videoSae;
  let current = null, main = null, header = null, token = 0;

  // Which view an address means: {view, key, params}; the same key means the same view in another state.
  function resolve({ parts, query }) {
    const saes = videoSae.state.run.saes.filter((sae) => sae.features !== false);
    const usual = (saes[0] || videoSae.state.run.saes[0])?.name;
    const [a, b, c] = parts;
    const made = (view, params, ...key) => ({ view, key: [view, ...key].join(" "), params: { ...params, query } });
    if (!a) return usual ? made("latents", { sae: usual }, usual) : made("nothing", {});
    if (a === "videos") return made("videos", {});
    if (a === "video") return made("video", { id: b, sae: query.get("sae") || usual }, b, query.get("sae") || usual);
    if (a === "tasks") return made("tasks", {});
    if (a === "task") return made("task", { number: Number(b) }, b);
    if (a === "compare") return made("compare", { sides: [b, c], usual }, b, c);
    if (a === "blind") return made("blind", { sae: b || usual }, b || usual);
    if (a === "debt") return made("debt", { sae: b || usual, label: c || null }, b || usual, c);
    if (b === "latents" || !b) return made("latents", { sae: a }, a);
    if (b === "latent") return made("latent", { sae: a, latent: Number(c) }, a, c);
    return made("lost", {});
  }

  async function route() {
    const next = resolve(videoSae.read());
    nav(next);
    if (current && current.key === next.key) { current.handle.update?.(next.params); if (current.made) settle(); return; }
    current?.handle.destroy?.();
    current = { key: next.key, handle: {} };
    const mine = ++token;
    const stage = h("div", { class: `view view-${next.view}` });
    main.replaceChildren(stage);
    window.scrollTo(0, 0);
    const started = performance.now();
    const patience = setTimeout(() => {
      if (mine === token && !stage.childNodes.length) main.append(h("div", { class: "preparing", role: "status" }, `Preparing ${titleOf(next) || "the latents"} …`));
    }, 150);
    const prepared = () => { clearTimeout(patience); if (mine === token) main.querySelector(".preparing")?.remove(); };
    await videoSae.ready(next.view);
    const view = videoSae.views[next.view];
    try {
      const handle = (await view(stage, next.params)) || {};
      prepared();
      if (mine !== token) { handle.destroy?.(); return; }
      current.handle = handle;
      current.made = true;
      // The address may have moved on while the view was being made.
      const now = resolve(videoSae.read());
      if (now.key === next.key && String(now.params.query) !== String(next.params.query)) handle.update?.(now.params);
      videoSae.state.viewReady = { key: next.key, ms: performance.now() - started };
      settle();
    } catch (error) {
      prepared();
      if (mine !== token) return;
      console.error(error);
      videoSae.put(stage, videoSae.empty("This view cannot be shown.", `${error.message} If the run is still being written, load the page again later.`));
      settle();
    }
  }

  // Says which view is complete, for tests and for whoever drives the page by a program.
  const settle = () => { document.documentElement.dataset.ready = current.key; };
  videoSae.isSettled = () => videoSae.state.run !== null && document.documentElement.dataset.ready === resolve(videoSae.read()).key;

  // The table of latents needs the first scripts only, the other views those that come later as well.
  const later = new Promise((done) => { videoSae.started = done; });
  videoSae.ready = (view) => (view === "latents" ? null : later);

  videoSae.views.nothing = async (root) => {
    const { run } = videoSae.state;
    root.append(videoSae.empty("This run has no SAE yet.", "Train one on the stored activations; this page then shows its latents.", `video-sae train --run ${run.name} --site SITE`));
    if (run.n_videos) root.append(h("p", {}, h("a", { href: "#/videos" }, `Its ${videoSae.format.count(run.n_videos, "video")}`)));
  };
  videoSae.views.lost = async (root) => { root.append(videoSae.empty("There is no such page.", "The address leads nowhere."), h("p", { class: "centre" }, h("a", { href: "#/" }, "All latents"))); };

  const LINKS = [
    ["latents", "Latents", (sae) => [sae, "latents"]], ["videos", "Videos", () => ["videos"]], ["tasks", "Tasks", () => ["tasks"]],
    ["compare", "Compare", () => ["compare"]], ["blind", "Blind test", (sae) => ["blind", sae]], ["debt", "Annotation debt", (sae) => ["debt", sae]],
  ];
  const SAME = { latent: "latents", video: "videos", task: "tasks" };

  function nav(next) {
    const { run } = videoSae.state, sae = next.params.sae || videoSae.state.sae || run.saes[0]?.name;
    videoSae.state.sae = sae;
    document.title = [titleOf(next), run.name, "video-sae"].filter(Boolean).join(" · ");
    const here = SAME[next.view] || next.view;
    const links = h("nav", { "aria-label": "Views" }, sae ? LINKS.map(([view, title, parts]) =>
      h("a", { href: videoSae.address(parts(sae)), "aria-current": view === here ? "page" : null }, title)) : null);
    const select = h("select", { class: "sae-select", "aria-label": "SAE", onchange: () => {
      const { view, params } = resolve(videoSae.read());
      if (view === "video") videoSae.change({ sae: select.value, latent: null }, { push: true });
      else if (view === "blind" || view === "debt") videoSae.go([view, select.value]);
      else if (view === "latent") videoSae.go([select.value, "latent", params.latent]);
      else videoSae.go([select.value, "latents"]);
    } });
    for (const one of videoSae.allSaes()) select.append(h("option", { value: one.name }, videoSae.titleOf(one.name)));
    if (sae) select.value = sae;
    videoSae.put(header, 
      h("a", { class: "brand", href: "#/", "aria-label": "video-sae: all latents" }, h("img", { src: "page/icon.svg", alt: "", width: 18, height: 18 }), h("span", {}, "video-sae"), h("span", { class: "run-name" }, videoSae.said(run.name))),
      links,
      h("div", { class: "header-tools" }, run.saes.length ? select : null, notesTool(), h("button", { type: "button", class: "icon-button", "aria-label": "Keys", title: "Keys (?)", onclick: help }, "?"),
        videoSae.iconButton("sun", "Light or dark", toggleTheme)),
    );
  }

  // The SAEs, and behind each its baseline.
  videoSae.allSaes = () => {
    const { saes } = videoSae.state.run;
    return saes.flatMap((one) => (one.baseline && !saes.some(({ name }) => name === one.baseline) ? [one, { name: one.baseline }] : [one]));
  };

  function titleOf({ view, params }) {
    if (view === "latent") return `latent ${params.latent}`;
    if (view === "video") return params.id;
    return { videos: "videos", tasks: "tasks", task: "task", compare: "compare", blind: "blind test", debt: "annotation debt" }[view];
  }

  function notesTool() {
    if (videoSae.state.session.served || !videoSae.notes.hasUnsaved()) return null;
    return h("button", { type: "button", title: "Notes made on an exported page stay in this browser; this saves them as a file.", onclick: () =>
      videoSae.download("notes.json", [JSON.stringify(videoSae.notes.all(), null, 1)], "application/json") }, "Download notes");
  }

  function toggleTheme() {
    const root = document.documentElement;
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("video-sae theme", root.dataset.theme); } catch { /* a browser without storage forgets it */ }
    current?.handle.theme?.();
  }
  const isDark = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  videoSae.isDark = isDark;

  const KEYS = [
    ["j  k", "next and previous row, latent, trial"], ["Enter", "open"], ["Backspace or u", "back to the table"], ["/", "search"],
    ["Space", "play or pause"], ["←  →", "one frame back or on"], ["Shift + ←  →", "one of the model's time steps"], ["h  b", "heat map, boxes"],
    ["1 … 7", "group of moments"], ["y  n  u", "annotation debt: there, not there, cannot tell"], ["1  2", "blind test: first, second"], ["Esc", "leave a field, a panel or a menu"], ["?", "these keys"],
  ];
  function help() {
    const dialog = h("dialog", { class: "help", "aria-label": "Keys" }, h("h2", {}, "Keys"),
      h("dl", {}, KEYS.map(([keys, what]) => [h("dt", {}, keys.split("  ").flatMap((key, i) => [i ? " " : "", h("kbd", {}, key)])), h("dd", {}, what)])),
      h("form", { method: "dialog" }, h("button", { class: "primary" }, "Close")));
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  }

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const typing = event.target.closest?.("input:not([type=checkbox]):not([type=range]), textarea, select");
    if (typing) { if (event.key === "Escape") typing.blur(); return; }
    const onControl = event.target.closest?.("button, a, summary") && (event.key === "Enter" || event.key === " ");
    if (!onControl && current?.handle.keys?.(event)) { event.preventDefault(); return; }
    if (event.key === "?") { help(); event.preventDefault(); }
    if (event.key === "Backspace") { history.back(); event.preventDefault(); }
  });

  async function start() {
    try { const theme = localStorage.getItem("video-sae theme"); if (theme) document.documentElement.dataset.theme = theme; } catch { /* as above */ }
    const early = videoSae.read().parts;
    if (early.length && (early[1] === "latents" || early[1] === "latent")) videoSae.load(`${early[0]}/latents`);
    const [run, session] = await Promise.all([videoSae.load("run"), sessionOf()]);
    videoSae.state.session = session;
    if (document.readyState === "loading") await new Promise((done) => document.addEventListener("readystatechange", done, { once: true }));
    const app = document.getElementById("app");
    header = h("header", { class: "top" });
    main = h("main", { id: "main", tabindex: "-1" });
    app.append(header, main, h("div", { id: "live", class: "visually-hidden", role: "status", "aria-live": "polite" }));
    if (!run) {
      document.documentElement.dataset.ready = "none";
      videoSae.isSettled = () => true;
      main.append(videoSae.empty("This page has no data.", "The file shards/run.js is missing: the export is incomplete, or the run is still being written."));
      return;
    }
    videoSae.state.run = { saes: [], stages: [], ...run.meta };
    // An SAE is known by its key, which is part of addresses and of files' names; its title is what people call it.
    videoSae.state.run.saes = videoSae.state.run.saes.map((sae) => ({ ...sae, title: sae.name, name: sae.key ?? sae.name }));
    watch(session);
    await videoSae.notes.open();
    videoSae.notes.listen(() => current?.handle.notes?.());
    window.addEventListener("hashchange", route);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => current?.handle.theme?.());
    route();
  }

  // A run that is still being written: when a stage has gone on, a button offers to load the page again.
  function watch(session) {
    if (!session.served || session.version === undefined) return;
    const timer = setInterval(async () => {
      if (document.hidden) return;
      const now = await sessionOf();
      if (!now.served || now.version === session.version) return;
      clearInterval(timer);
      header.after(h("div", { class: "newer", role: "status" }, "The run has gone on. ", h("button", { type: "button", onclick: () => location.reload() }, "Show what is new")));
    }, 15000);
  }

  // What people call an SAE; the baseline of one is not an SAE of the run itself.
  videoSae.titleOf = (key) => {
    const { saes } = videoSae.state.run, own = saes.find((one) => one.name === key);
    if (own && !key.endsWith("~baseline")) return own.title;
    const of = saes.find((one) => one.baseline === key);
    return of ? `${of.title} · frozen decoder` : own ? own.title : key;
  };

  // What the server says of itself; an exported page has none.
  async function sessionOf() {
    if (!location.protocol.startsWith("http")) return { served: false };
    try {
      const answer = await fetch("api/session", { headers: { Accept: "application/json" } });
      return answer.ok ? await answer.json() : { served: false };
    } catch { return { served: false }; }
  }
  start();
})();
