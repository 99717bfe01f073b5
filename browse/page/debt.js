// Annotation debt: the strongest firings of a labelled latent outside every box of its label, judged one by one.
"use strict";

(() => {
  const { h, format } = videoSae;
  const WORDS = { there: "it is there", not: "it is not there", unknown: "cannot tell" };
  const KEYS = { y: "there", n: "not", u: "unknown" };

  // Precision with the judgements: firings outside that were judged to show the thing count as right.
  // The interval is Wilson's on the judged share, carried over to the share that no box covers.
  videoSae.correctedPrecision = ({ inside, outside }, judged) => {
    const there = judged.filter((one) => one === "there").length, n = judged.filter((one) => one !== "unknown").length;
    const all = inside + outside, [low, high] = videoSae.wilson(there, n);
    const of = (share) => (all ? (inside + outside * share) / all : null);
    return { annotated: of(0), precision: n ? of(there / n) : null, low: of(low), high: of(high), n_there: there, n_judged: n };
  };

  videoSae.views.debt = (root, { sae, label, query }) => (label === null ? list(root, sae) : judge(root, sae, label, query));

  async function list(root, sae) {
    const table = sae ? await videoSae.loadTable(`${sae}/latents`) : null;
    const labels = (table?.meta.labels || []).filter((one) => one.n_latents > 0);
    if (!labels.length) {
      root.append(videoSae.empty("No labelled latents.", "Annotation debt needs latents with a label, and labels need annotation files next to the videos."));
      return {};
    }
    const counts = new Map();
    for (const [key] of videoSae.notes.entries("judgement")) { const one = parseKey(key); if (one && one.sae === short(sae) && one.video) counts.set(one.label, (counts.get(one.label) || 0) + 1); }
    root.append(h("h1", {}, "Annotation debt"), h("p", { class: "quiet lead" }, "A latent that fires where no box of its label is may be wrong, or the annotation may be missing. Look at its strongest firings outside and judge each with one key."),
      h("div", { class: "panel" }, videoSae.plainTable("Labels", [
        { title: "Label", kind: "words", cell: (row) => h("a", { href: videoSae.address(["debt", sae, row.label]) }, videoSae.said(row.label)) }, { title: "Kind", cell: (row) => row.kind },
        { title: "Latents", kind: "n", cell: (row) => format.number(row.n_latents) }, { title: "Judged", kind: "n", cell: (row) => format.number(counts.get(short(row.label)) || 0) }], labels)));
    return {};
  }

  // Keys of judgements: SAE:LABEL:LATENT:VIDEO:T0, each part escaped, and SAE:LABEL:LATENT for the precision.
  const part = (text) => short(String(text)).replace(/[%:]/g, (letter) => (letter === "%" ? "%25" : "%3A"));
  // A key has at most 1,000 characters: of a longer label its beginning stands, and a number made of all of it.
  const short = (text) => (text.length <= 240 ? text : `${text.slice(0, 200)}…${[...text].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 4294967291, 7)}`);
  const keyOf = (sae, row, moment) => [sae, row.label, row.latent, ...(moment ? [moment.video, moment.t0] : [])].map(part).join(":");
  function parseKey(key) {
    const parts = key.split(":").map((one) => { try { return decodeURIComponent(one); } catch { return one; } });
    return parts.length >= 3 ? { sae: parts[0], label: parts[1], latent: Number(parts[2]), video: parts[3] ?? null } : null;
  }

  async function judge(root, sae, label, query) {
    const table = await videoSae.loadTable(`${sae}/latents`), known = (table?.meta.labels || []).find((one) => one.label === label);
    const shard = await videoSae.load(`${sae}/debt/${known?.key ?? videoSae.fileId(label)}`), rows = (shard?.get("json")?.values || []).filter(Boolean);
    const back = h("div", { class: "crumbs" }, h("a", { href: videoSae.address(["debt", sae]) }, "Annotation debt"));
    const queue = rows.flatMap((row) => row.moments.map((moment) => ({ row, moment })));
    if (!queue.length) { root.append(back, h("h1", {}, videoSae.said(label)), videoSae.empty("Nothing to judge.", shard?.meta.why || shard?.meta.error || "The latents of this label do not fire outside its boxes, or their moments are still being written.")); return {}; }
    const player = videoSae.player({ label: "moment to judge" });
    const caption = h("div", { class: "caption" }), status = h("div", { class: "quiet", role: "status" }), scores = h("div", { class: "scores" });
    const strip = h("div", { class: "tiles judged-tiles" });
    const judged = (entry) => videoSae.notes.get("judgement", keyOf(sae, entry.row, entry.moment));
    const buttons = Object.entries(KEYS).map(([key, word]) => h("button", { type: "button", "data-judgement": word, onclick: () => say(word) }, `${WORDS[word][0].toUpperCase()}${WORDS[word].slice(1)} `, h("kbd", {}, key)));
    const open = queue.findIndex((entry) => judged(entry) === null);
    let at = Math.max(0, Math.min(queue.length - 1, query.has("i") ? Number(query.get("i")) : Math.max(0, open)));

    root.append(back, h("h1", {}, videoSae.said(label)), h("p", { class: "quiet lead" }, "Is it there, where the latent fires?"),
      h("div", { class: "debt" }, h("section", { class: "panel", "aria-label": "Moment" }, player.root, caption, h("div", { class: "row judge" }, buttons, h("span", { class: "spring" }), videoSae.iconButton("left", "Previous moment (k)", () => move(-1)), videoSae.iconButton("right", "Next moment (j)", () => move(1))), status, strip),
        h("section", { class: "panel", "aria-label": "Precision" }, h("h2", {}, "Precision"), h("p", { class: "quiet about" }, "Share of the latent's firing that lies on its label: as annotated, and corrected by your judgements, with a 95 % interval (Wilson)."), scores)));
    const tiles = queue.map((entry, i) => { const tile = videoSae.tile(entry.moment, { label: `Moment ${i + 1}: latent ${entry.row.latent} in ${entry.moment.video}`, onclick: () => { at = i; show(); } }); strip.append(tile); return tile; });

    async function say(word) {
      const entry = queue[at];
      try {
        await videoSae.notes.set("judgement", keyOf(sae, entry.row, entry.moment), word);
        await keepPrecision(entry.row);
        status.textContent = `Saved: ${WORDS[word]}.`;
        status.classList.remove("warn");
      } catch (error) { status.textContent = `Not saved: ${error.message}`; status.classList.add("warn"); return; }
      const next = queue.findIndex((one, i) => i > at && judged(one) === null);
      if (next >= 0) at = next; else if (at < queue.length - 1) at += 1;
      show();
    }
    const precisionOf = (row) => videoSae.correctedPrecision(row, row.moments.map((moment) => judged({ row, moment })).filter((one) => one !== null));
    const keepPrecision = (row) => videoSae.notes.set("judgement", keyOf(sae, row, null), { ...precisionOf(row), inside: row.inside, outside: row.outside });
    function move(step) { at = Math.max(0, Math.min(queue.length - 1, at + step)); show(); }

    function show() {
      const { row, moment } = queue[at];
      videoSae.change({ i: at });
      videoSae.playMoment(player, moment, { peak: null, autoplay: true });
      const said = judged(queue[at]);
      videoSae.put(caption, h("span", {}, `${at + 1} of ${queue.length}`), h("a", { href: videoSae.latentAddress(sae, row.latent) }, `Latent ${row.latent}`), h("a", { href: videoSae.videoAddress(moment.video, { sae, latent: row.latent, t: moment.start_s.toFixed(2) }) }, videoSae.said(moment.video)), h("span", {}, `activation ${format.number(moment.activation)}`), said ? h("span", { class: "tag" }, `judged: ${WORDS[said]}`) : null);
      buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.judgement === said)));
      tiles.forEach((tile, i) => { tile.setAttribute("aria-pressed", String(i === at)); tile.dataset.judged = judged(queue[i]) || ""; });
      strip.scrollLeft = tiles[at].offsetLeft - strip.offsetLeft - strip.clientWidth / 2;
      videoSae.put(scores, videoSae.plainTable("Precision", [
        { title: "Latent", cell: (one) => h("a", { href: videoSae.latentAddress(sae, one.latent) }, String(one.latent)) }, { title: "Annotated", kind: "n", cell: (one) => format.percent(precisionOf(one).annotated) },
        { title: "Corrected", kind: "n", cell: (one) => { const p = precisionOf(one); return h("span", { class: "corrected" }, format.percent(p.precision)); } },
        { title: "", kind: "chart-cell", cell: (one) => { const p = precisionOf(one); return p.n_judged ? videoSae.whisker({ low: p.low, high: p.high, point: p.precision, from: 0, to: 1, marks: [{ at: p.annotated, title: "as annotated", kind: "control" }] }) : h("span", { class: "quiet" }, "not judged yet"); } },
        { title: "Interval", kind: "n ci", cell: (one) => { const p = precisionOf(one); return p.n_judged ? `${format.percent(p.low)} … ${format.percent(p.high)}` : ""; } },
        { title: "Judged", kind: "n", cell: (one) => `${one.moments.filter((moment) => judged({ row: one, moment }) !== null).length} of ${one.moments.length}` }], rows));
    }
    show();
    return { destroy: () => player.destroy(), theme: () => player.draw(), keys: (event) => {
      if (event.key in KEYS) { say(KEYS[event.key]); return true; }
      if (event.key === "j" || event.key === "k") { move(event.key === "j" ? 1 : -1); return true; }
      return player.keys(event);
    } };
  }
})();
