// Two latents side by side: of one SAE, of two SAEs or sites, or of an SAE and its frozen-decoder baseline.
"use strict";

(() => {
  const { h, format, panel } = videoSae;

  const parse = (text) => {
    const at = text ? text.lastIndexOf(":") : -1;
    return at < 0 ? null : { sae: text.slice(0, at), latent: Number(text.slice(at + 1)) };
  };

  videoSae.views.compare = async (root, { sides, usual }) => {
    const { run } = videoSae.state;
    if (!usual) { root.append(videoSae.empty("Nothing to compare.", "This run has no SAE yet.")); return {}; }
    const first = parse(sides[0]) || { sae: usual, latent: await mostInteresting(usual) };
    const baseline = run.saes.find((one) => one.name === first.sae)?.baseline;
    const second = parse(sides[1]) || (await counterpart(first, baseline));
    const pair = [first, second];
    const go = (i, next) => { pair[i] = next; videoSae.go(["compare", ...pair.map(({ sae, latent }) => `${sae}:${latent}`)]); };
    const columns = await Promise.all(pair.map((side, i) => column(side, i, (next) => go(i, next))));
    root.append(h("h1", {}, "Compare"), h("p", { class: "quiet lead" }, "Any two latents side by side. The frozen decoder is the baseline that keeps its random directions: what it shows as well is not learned from the data."),
      verdict(pair, columns), h("div", { class: "compare" }, columns.map((one) => one.root)));
    return {
      destroy: () => columns.forEach((one) => one.destroy()), theme: () => columns.forEach((one) => one.draw()),
      keys: (event) => (["ArrowLeft", "ArrowRight", " ", "h", "b"].includes(event.key) ? columns.map((one) => one.keys(event)).some(Boolean) : event.key === "u" ? (history.back(), true) : false),
    };
  };

  // The latent with the largest effect, or else the best association, or the first.
  async function mostInteresting(sae) {
    const table = await videoSae.loadTable(`${sae}/latents`);
    if (!table || !table.n_rows) return 0;
    for (const [name, size] of [["effect", Math.abs], ["top_auroc", (v) => v]]) {
      if (!table.has(name)) continue;
      let best = -Infinity, row = -1;
      table.get(name).values.forEach((v, i) => { if (size(v) > best) { best = size(v); row = i; } });
      if (row >= 0) return table.get("latent").values[row];
    }
    return table.get("latent").values[0];
  }

  // What a latent is held against at first: its nearest decoder direction, else the baseline's best latent.
  async function counterpart(first, baseline) {
    const object = await videoSae.latentObject(first.sae, first.latent), nearest = object?.neighbours?.decoder?.[0];
    if (nearest) return { sae: first.sae, latent: nearest.latent };
    if (baseline) return { sae: baseline, latent: await mostInteresting(baseline) };
    return { sae: first.sae, latent: first.latent + 1 };
  }

  function verdict(pair, columns) {
    const [a, b] = pair, [left, right] = columns.map((one) => one.object);
    if (!left || !right || a.sae !== b.sae) return "";
    const cosine = left.neighbours?.decoder?.find((row) => row.latent === b.latent)?.cosine, together = left.neighbours?.cofiring?.find((row) => row.latent === b.latent);
    const facts = [cosine === undefined ? null : `cosine of decoder directions ${format.number(cosine)}`, together ? `firing together ${format.number(together.jaccard)}` : null].filter(Boolean);
    return h("p", { class: "verdict" }, facts.length ? facts.join(" · ") : "Neither is among the other's nearest decoder directions.");
  }

  async function column(side, i, go) {
    const [table, object] = await Promise.all([videoSae.loadTable(`${side.sae}/latents`), videoSae.latentObject(side.sae, side.latent)]);
    const which = i === 0 ? "First" : "Second";
    const sae = h("select", { "aria-label": `${which} SAE`, onchange: () => go({ sae: sae.value, latent: side.latent }) });
    for (const one of videoSae.allSaes()) sae.append(h("option", { value: one.name }, videoSae.titleOf(one.name)));
    sae.value = side.sae;
    const number = h("input", { type: "number", min: 0, value: side.latent, "aria-label": `${which} latent`, onchange: () => go({ sae: side.sae, latent: Number(number.value) }) });
    const row = table ? videoSae.rowOf(table, side.latent) : -1, get = (name) => (row >= 0 && table.has(name) ? videoSae.cell(table.get(name), row) : null);
    const root = h("section", { class: "compare-side", "aria-label": `${which} side` }, h("form", { class: "row", onsubmit: (event) => { event.preventDefault(); go({ sae: sae.value, latent: Number(number.value) }); } }, sae, number,
      h("a", { href: videoSae.latentAddress(side.sae, side.latent) }, "Open")));
    if (!object) {
      root.append(h("div", { class: "panel" }, videoSae.empty(row < 0 ? `There is no latent ${side.latent} here.` : "Nothing more is known of this latent.", "It may be dead, or its data is still being written.")));
      return { root, object: null, destroy: () => {}, draw: () => {}, keys: () => false };
    }
    const player = videoSae.player({ label: `latent ${side.latent}, ${which.toLowerCase()}`, compact: true });
    const rows = videoSae.momentRows({ moments: object.moments, groups: object.groups, onpick: play });
    function play(moment) { rows.mark(moment); videoSae.playMoment(player, moment, { peak: object.max_activation, autoplay: true }); }
    const best = (object.associations || []).slice(0, 5);
    root.append(h("h2", {}, `Latent ${side.latent} `, get("top_label") === null ? h("span", { class: "quiet" }, "no label") : videoSae.said(get("top_label"))),
      h("dl", { class: "facts" }, [["AUROC", format.number(get("top_auroc"))], ["within video", format.number(get("top_within_video_auroc"))], ["effect", format.absent(get("effect")) ? "–" : format.signed(get("effect"))], ["fires on", get("firing_rate") === null ? "–" : `${format.number(get("firing_rate") * 100)} %`]].map(([title, value]) => h("div", { class: "fact" }, h("dt", {}, title), h("dd", {}, value)))),
      panel({ name: `moments-${i}`, title: "Moments" }, object.moments.length ? [player.root, rows.root] : videoSae.empty("No moments.", "It fires on no token of this run.")),
      best.length ? panel({ name: `associations-${i}`, title: "What it goes with" }, videoSae.plainTable("Associations", [
        { title: "Label", kind: "words", cell: (one) => videoSae.said(one.label) }, { title: "AUROC", kind: "n", cell: (one) => format.number(one.auroc) },
        { title: "", kind: "chart-cell", cell: (one) => videoSae.whisker({ low: one.low, high: one.high, point: one.auroc, from: 0.5, to: 1, zero: 0.5, marks: [{ at: one.control_p95, title: "controls", kind: "control" }, { at: one.baseline_p95, title: "baseline", kind: "baseline" }] }) },
        { title: "Holds", cell: (one) => (one.holds ? h("span", { class: "tag good" }, "holds") : h("span", { class: "quiet" }, "no")) }], best)) : null,
      (object.neighbours?.decoder || []).length ? panel({ name: `neighbours-${i}`, title: "Nearest decoder directions" }, h("ul", { class: "links" }, object.neighbours.decoder.slice(0, 6).map((one) => h("li", {}, videoSae.latentLink(side.sae, table, one.latent, `cos ${format.number(one.cosine)}`))))) : null);
    if (object.moments.length) play(rows.ordered[0]);
    return { root, object, destroy: () => player.destroy(), draw: () => player.draw(), keys: (event) => player.keys(event) };
  }
})();
