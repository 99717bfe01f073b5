// One latent: its moments, what it goes with, and what editing it does.
"use strict";

(() => {
  const { h, format, panel, plainTable } = videoSae;

  videoSae.views.latent = async (root, { sae, latent, query }) => {
    const table = await videoSae.loadTable(`${sae}/latents`);
    if (!table) {
      root.append(videoSae.empty("This SAE has no latents yet.", (await videoSae.errorOf(`${sae}/latents`)) || "They are written by the stage features.", "video-sae features --run RUN"));
      return {};
    }
    if (!Number.isInteger(latent) || videoSae.rowOf(table, latent) < 0) {
      root.append(videoSae.empty(`This SAE has no latent ${latent}.`, `It has ${format.count(table.n_rows, "latent")}, counted from 0.`));
      return {};
    }
    const about = videoSae.state.run.saes.find((one) => one.name === sae) || {};
    const body = h("div", { class: "panels" });
    root.append(head(sae, latent, table), body);
    const patience = setTimeout(() => body.append(h("div", { class: "panel wide preparing", role: "status" }, "Preparing its moments …")), 150);
    const object = await videoSae.latentObject(sae, latent);
    clearTimeout(patience);
    body.replaceChildren();
    if (!object) {
      body.append(h("div", { class: "panel wide" }, videoSae.empty("Nothing more is known of this latent.", (await videoSae.errorOf(`${sae}/latent/${Math.floor(latent / (table?.meta.latents_per_shard || 128))}`)) || "It may be dead, or its page is still being written.")));
      return { keys: (event) => stepLatent(event, sae, latent, table) };
    }
    const theatre = moments(sae, object, query);
    if (object.detail === "brief") body.append(h("div", { class: "panel wide brief" }, "This export tells this latent in brief, to stay small: it was neither edited nor named. Serve the run to see all of it."));
    body.append(theatre.root, associations(object, about), effects(object, about), mechanisms(object), doses(object), items(object, sae), activation(object), place(object), neighbours(object, sae, table), tokens(object));
    body.querySelectorAll(":scope > :empty").forEach((node) => node.remove());
    videoSae.applyPanel(root, query);
    return {
      update: (next) => { theatre.update(next.query); videoSae.applyPanel(root, next.query); },
      keys: (event) => (event.key === "Escape" && videoSae.leavePanel(root)) || theatre.keys(event) || stepLatent(event, sae, latent, table),
      theme: () => { theatre.draw(); root.querySelectorAll(".chart").forEach((chart) => chart.theme()); },
      destroy: () => { theatre.destroy(); document.body.classList.remove("has-full"); root.querySelectorAll(".chart").forEach((chart) => chart.destroy()); },
    };
  };

  // Neighbours of a latent in the order that the table last had.
  function around(sae, latent, table) {
    const order = videoSae.state.order;
    if (order && order.sae === sae) {
      const at = order.rows.findIndex((row) => order.latents[row] === latent);
      if (at >= 0) return { before: at > 0 ? order.latents[order.rows[at - 1]] : null, after: at + 1 < order.rows.length ? order.latents[order.rows[at + 1]] : null, at: at + 1, n: order.rows.length };
    }
    const n = table ? table.n_rows : latent + 1;
    return { before: latent > 0 ? latent - 1 : null, after: latent + 1 < n ? latent + 1 : null, at: null, n };
  }

  function stepLatent(event, sae, latent, table) {
    const { before, after } = around(sae, latent, table), to = event.key === "j" ? after : event.key === "k" ? before : undefined;
    if (event.key === "u") { history.length > 1 ? history.back() : videoSae.go([sae, "latents"]); return true; }
    if (to === undefined) return false;
    if (to !== null) location.replace(videoSae.latentAddress(sae, to));
    return true;
  }

  function head(sae, latent, table) {
    const row = table ? videoSae.rowOf(table, latent) : -1, get = (name) => (row >= 0 && table.has(name) ? videoSae.cell(table.get(name), row) : null);
    const { before, after, at, n } = around(sae, latent, table), key = `${sae}:${latent}`;
    const step = (icon, label, to) => to === null ? videoSae.iconButton(icon, label, () => {}, { disabled: true }) : h("a", { class: "icon-link", href: videoSae.latentAddress(sae, to), "aria-label": `${label}: ${to}`, title: label }, videoSae.icon(icon));
    const label = get("top_label"), because = get("unnamed_because"), named = label !== null && get("labelled") !== false;
    const fact = (title, value, props) => (value === null || value === "–" ? null : h("div", { class: "fact", ...props }, h("dt", {}, title), h("dd", {}, value)));
    return h("div", { class: "latent-head" },
      h("div", { class: "latent-title" },
        h("div", { class: "crumbs" }, h("a", { href: videoSae.address([sae, "latents"]), onclick: (event) => { if (videoSae.state.order?.sae === sae && history.length > 1) { event.preventDefault(); history.back(); } } }, "Latents"), step("left", "Previous latent (k)", before), step("right", "Next latent (j)", after), at ? h("span", { class: "quiet" }, `${format.number(at)} of ${format.number(n)}`) : null),
        h("h1", {}, h("span", { class: "quiet" }, "Latent "), String(latent), label && named ? [" ", videoSae.said(label, { class: "title-label" })] : null),
        h("div", { class: "tags" }, named && get("top_label_kind") ? h("span", { class: "tag accent" }, get("top_label_kind")) : null, get("is_dead") ? h("span", { class: "tag warn" }, "dead") : null,
          named ? null : h("span", { class: "tag" }, because ? `no name: ${because}` : "no label holds"), named || label === null ? null : h("span", { class: "quiet" }, "nearest label: ", videoSae.said(label)), get("claim") ? h("span", { class: videoSae.claimTone(get("claim")) }, videoSae.said(get("claim"))) : null,
          h("a", { class: "tag-link", href: videoSae.address(["compare", key]) }, "Compare"))),
      h("dl", { class: "facts" },
        fact("AUROC", format.number(get("top_auroc"))), fact("within video", format.number(get("top_within_video_auroc"))),
        fact("effect", get("effect") === null ? "–" : format.signed(get("effect")), { title: [get("effect_subject"), get("effect_method")].filter(Boolean).join(", ") }),
        fact("fires on", get("firing_rate") === null ? "–" : `${format.number(get("firing_rate") * 100)} %`), fact("videos", format.number(get("n_videos_active"))), fact("largest", format.number(get("max_activation")))),
      h("div", { class: "latent-notes" }, videoSae.noteField({ kind: "name", key, label: "Your name for this latent", placeholder: "Name this latent" }),
        videoSae.noteField({ kind: "note", key, label: "Your note on this latent", placeholder: "A note", multiline: true })));
  }

  function moments(sae, object, query) {
    const player = videoSae.player({ label: `moments of latent ${object.latent}` });
    const caption = h("div", { class: "caption" });
    const rows = videoSae.momentRows({ moments: object.moments, groups: object.groups, onpick: (moment) => { videoSae.change({ m: idOf(moment) === idOf(rows.ordered[0]) ? null : idOf(moment) }); play(moment, true); } });
    const idOf = (moment) => `${moment.group}.${moment.rank}`;
    let current = null, alive = true;
    const about = "Each row is a part of the latent's activation, from its strongest moments down, with its share: judge the latent by all of them.";
    const root = object.moments.length
      ? panel({ name: "moments", title: "Moments", about, wide: true }, h("div", { class: "theatre" }, h("div", { class: "theatre-player" }, player.root, caption), rows.root))
      : panel({ name: "moments", title: "Moments", wide: true }, videoSae.empty("No moments.", "The latent fires on no token of this run, or features has not chosen moments yet."));

    async function play(moment, autoplay) {
      current = moment;
      rows.mark(moment);
      const [title] = videoSae.GROUPS[moment.group] || [moment.group];
      videoSae.put(caption, 
        h("a", { href: videoSae.videoAddress(moment.video, { sae, latent: object.latent, t: moment.start_s.toFixed(2) }) }, videoSae.said(moment.video)),
        h("span", {}, `${format.seconds(moment.start_s)} – ${format.seconds(moment.stop_s)}`), h("span", {}, `activation ${format.number(moment.activation)}`),
        h("span", {}, `${title}, moment ${moment.rank + 1}`), h("span", {}, format.count(moment.n_tokens, "token")), moment.split ? h("span", { class: "tag" }, moment.split.replace("_", " ")) : null);
      const shown = await videoSae.playMoment(player, moment, { peak: object.max_activation, autoplay });
      if (alive && !shown) caption.append(h("span", { class: "warn" }, "The data of this video is missing or still being written."));
    }
    const pick = (q) => rows.ordered.find((moment) => idOf(moment) === q.get("m")) || rows.ordered[0];
    if (object.moments.length) play(pick(query), true);

    const numbers = { 1: "top", 2: "q5", 3: "q4", 4: "q3", 5: "q2", 6: "q1", 7: "random" };
    return {
      root, draw: () => player.draw(), destroy: () => { alive = false; player.destroy(); },
      update: (q) => { if (object.moments.length && pick(q) !== current) play(pick(q), true); },
      keys: (event) => {
        if (!object.moments.length) return false;
        const first = numbers[event.key] ? rows.firstOf(numbers[event.key]) : null;
        const at = rows.ordered.indexOf(current), step = event.key === "n" || event.key === "]" ? 1 : event.key === "p" || event.key === "[" ? -1 : 0;
        const next = first || (step ? rows.ordered[at + step] : null);
        if (next) { videoSae.change({ m: idOf(next) }); play(next, true); return true; }
        return player.keys(event);
      },
    };
  }

  function associations(object, about) {
    const rows = object.associations || [];
    const title = "What it goes with";
    if (!rows.length) {
      return panel({ name: "associations", title }, about.has_annotations === false
        ? videoSae.empty("No annotations.", "Labels come from annotation files next to the videos; this run has none.")
        : videoSae.empty("No label was tested for this latent.", "It fires on too few tokens or videos, or on none."));
    }
    const from = Math.min(0.5, ...rows.map((row) => row.low ?? row.auroc ?? 0.5));
    return panel({ name: "associations", title, wide: true, about: "AUROC of the latent against each label on held-out videos, with a 95 % interval over videos. Grey tick: the best 5 % of matched random directions; orange tick: of the frozen-decoder baseline." },
      plainTable(title, [
        { title: "Label", kind: "words", cell: (row) => [videoSae.said(row.label), " ", row.is_name ? h("span", { class: "tag good" }, "its name") : row.runner_up ? h("span", { class: "tag" }, "runner-up") : null] },
        { title: "Kind", cell: (row) => [row.kind, row.level && row.level !== "token" ? h("span", { class: "quiet" }, ` (per ${row.level})`) : null] },
        { title: "AUROC", kind: "n", cell: (row) => format.number(row.auroc) },
        { title: videoSae.scaleHead(format.number(from), "", "1"), kind: "chart-cell", cell: (row) => videoSae.whisker({ low: row.low, high: row.high, point: row.auroc, from, to: 1, zero: 0.5, marks: [{ at: row.control_p95, title: "controls, 95th percentile", kind: "control" }, { at: row.baseline_p95, title: "baseline, 95th percentile", kind: "baseline" }] }) },
        { title: "Within video", kind: "n", cell: (row) => [format.number(row.within), format.absent(row.within_low) ? null : h("span", { class: "ci" }, ` ${format.interval(row.within_low, row.within_high)}`)] },
        { title: "q", kind: "n", cell: (row) => format.number(row.q) },
        { title: "Videos", kind: "n", about: "Videos in which the label occurs", cell: (row) => format.number(row.n_videos) },
        { title: "Holds", cell: (row) => (row.holds ? h("span", { class: "tag good" }, "holds") : h("span", { class: "quiet" }, "no")) },
      ], rows));
  }

  function effects(object, about) {
    const rows = object.effects || [], title = "What editing it does to counting";
    if (!rows.length) {
      return panel({ name: "effects", title }, about.has_effects === false
        ? videoSae.empty("No effects yet.", "The stage steer measures how editing latents changes the model's answers.", "video-sae steer --run RUN")
        : videoSae.empty("No effect was measured for this latent.", "The screen did not pick it for any subject."));
    }
    rows.forEach((row) => { row.shown = format.absent(row.delta_margin) ? row.attribution : row.delta_margin; });
    const values = rows.flatMap((row) => [row.low, row.high, row.shown]).filter((v) => !format.absent(v)), most = Math.max(...values.map(Math.abs), 1e-6);
    return panel({ name: "effects", title, wide: true, about: "Change of the margin of the right answer when the latent is ablated, per subject, with its interval; beside it the same edit on other counting questions and on questions that ask for no number." },
      (object.claims || []).length ? h("ul", { class: "claims" }, object.claims.map((claim) => h("li", {}, h("span", { class: videoSae.claimTone(claim.claim ?? claim.text) }, videoSae.said(claim.text)), " ", h("span", { class: "quiet" }, videoSae.said(claim.rule))))) : null,
      plainTable(title, [
        { title: "Subject", kind: "words", cell: (row) => videoSae.said(row.subject) },
        { title: "Videos", cell: (row) => (row.train ? "train" : "held out") },
        { title: "Method", cell: (row) => videoSae.methodTag(row.method) },
        { title: "Margin (nats)", kind: "n", cell: (row) => format.signed(row.shown) },
        { title: videoSae.scaleHead(format.number(-most), "0", format.signed(most)), kind: "chart-cell", cell: (row) => videoSae.whisker({ low: row.low, high: row.high, point: row.shown, from: -most, to: most, zero: 0, marks: [{ at: row.other, title: "other counting questions", kind: "control" }, { at: row.noncounting, title: "non-counting questions", kind: "baseline" }] }) },
        { title: "Count", kind: "n", about: "Change of the expected count", cell: (row) => format.signed(row.delta_expected_count) },
        { title: "Others", kind: "n", about: "Change on other counting questions", cell: (row) => format.signed(row.other) },
        { title: "Non-counting", kind: "n", cell: (row) => format.signed(row.noncounting) },
        { title: "q", kind: "n", cell: (row) => format.number(row.q) },
        { title: "Items", kind: "n", cell: (row) => format.number(row.n_items) },
      ], rows, { rowProps: (row) => ({ class: row.train ? "lesser" : null }) }));
  }

  function doses(object) {
    const rows = object.doses || [], answers = object.dose_response || [];
    if (!rows.length && !answers.length) return "";
    // To ablate is to scale by 0, and to scale by 1 changes nothing: one scale has them all.
    const bySubject = new Map();
    for (const row of rows) {
      const scales = row.operation === "ablate" || /^scale/.test(row.operation), title = [scales ? "scale" : row.operation, row.subject].filter(Boolean).join(": ");
      if (!bySubject.has(title)) bySubject.set(title, scales ? [{ strength: 1, delta_margin: 0, control_low: 0, control_high: 0, low: 0, high: 0 }] : []);
      const strength = row.operation === "ablate" ? 0 : row.strength;
      if (!bySubject.get(title).some((one) => one.strength === strength)) bySubject.get(title).push({ ...row, strength });
    }
    // Doses of confirmed latents are finer; the controls of the same strengths stand behind them.
    for (const subject of new Set(answers.map((row) => row.subject))) {
      const title = `scale: ${subject}`, coarse = bySubject.get(title) || [], fine = answers.filter((row) => row.subject === subject);
      bySubject.delete(title);
      bySubject.set(fine[0].shape ? `${title} (${fine[0].shape})` : title, fine.map((row) => {
        const control = coarse.find((one) => one.strength === row.dose);
        return { ...row, strength: row.dose, control_low: control?.control_low ?? null, control_high: control?.control_high ?? null };
      }));
    }
    const groups = [...bySubject].map(([title, list]) => ({ title, doses: list }));
    return panel({ name: "doses", title: "Dose and response", about: "Blue: change of the margin with its interval, against the strength of the edit; 1 leaves the latent as it is. Grey band: matched control latents under the same edit." },
      groups.map(({ title, doses: list }) => [title ? h("h3", {}, videoSae.said(title)) : null, videoSae.doseChart(list)]));
  }

  function mechanisms(object) {
    const rows = object.mechanisms || [];
    if (!rows.length) return "";
    return panel({ name: "mechanisms", title: "How it does it", wide: true, about: "What edits at single events, in sets, of the counted number and along routes say of a confirmed latent." },
      plainTable("How it does it", [
        { title: "Subject", kind: "words", cell: (row) => videoSae.said(row.subject) }, { title: "Asked", kind: "keep", cell: (row) => videoSae.said(row.aspect) },
        { title: "Answer", kind: "keep", cell: (row) => h("span", { class: "tag" }, videoSae.said(row.verdict)) }, { title: "Value", kind: "n", cell: (row) => format.number(row.value) },
        { title: "Interval", kind: "n ci", cell: (row) => format.interval(row.low, row.high) }, { title: "Videos", kind: "n", cell: (row) => format.number(row.n_videos) },
        { title: "Rule", kind: "words", cell: (row) => videoSae.said(row.rule, { class: "quiet" }) }], rows));
  }

  function items(object, sae) {
    const rows = object.items || [];
    if (!rows.length) return "";
    return panel({ name: "items", title: "Item by item", about: "The items that the edit changes most. Each opens its video at that question." },
      plainTable("Items", [
        { title: "Video", kind: "keep", cell: (row) => h("a", { href: videoSae.videoAddress(row.video, { sae, latent: object.latent, item: row.item }) }, videoSae.said(row.video)) },
        { title: "Question", kind: "words", cell: (row) => [videoSae.said(row.question || row.item), row.held_out ? h("span", { class: "quiet" }, " · held out") : null] },
        { title: "Margin", kind: "n", cell: (row) => format.signed(row.delta_margin) },
        { title: "Count", kind: "n", cell: (row) => format.signed(row.delta_expected_count) },
      ], rows));
  }

  function activation(object) {
    if (!object.histogram?.counts?.length) return "";
    return panel({ name: "histogram", title: "How strongly it fires", about: "Tokens per activation, on a logarithmic scale." }, videoSae.histogram(object.histogram));
  }

  function place(object) {
    if (!object.place?.length && !object.time?.length) return "";
    const side = Math.round(Math.sqrt(object.place?.length || 0)), grid = object.grid || { n_row: side, n_col: side };
    return panel({ name: "place", title: "Where and when it fires", about: "Mean activation per place in the frame, and from the start to the end of clips. A latent that fires at one place or time only may stand for just that." },
      h("div", { class: "place-time" }, object.place?.length ? videoSae.placeChart(object.place, grid) : null,
        object.time?.length ? h("div", { class: "time-side" }, videoSae.timeChart(object.time), h("div", { class: "axis-words quiet" }, h("span", {}, "start"), h("span", {}, "end"))) : null));
  }

  function neighbours(object, sae, table) {
    const { decoder = [], cofiring = [] } = object.neighbours || {};
    if (!decoder.length && !cofiring.length) return "";
    const list = (title, rows, extra) => h("div", {}, h("h3", {}, title), rows.length ? h("ul", { class: "links" }, rows.map((row) => h("li", {}, videoSae.latentLink(sae, table, row.latent, extra(row)),
      h("a", { class: "quiet compare-link", href: videoSae.address(["compare", `${sae}:${object.latent}`, `${sae}:${row.latent}`]), "aria-label": `Compare with latent ${row.latent}`, title: "Side by side" }, "⇄")))) : h("p", { class: "quiet" }, "none"));
    return panel({ name: "neighbours", title: "Neighbours" }, h("div", { class: "two" },
      list("By decoder direction", decoder, (row) => `cos ${format.number(row.cosine)}`), list("By firing together", cofiring, (row) => format.number(row.jaccard))));
  }

  function tokens(object) {
    const all = object.tokens;
    if (!all) return "";
    if (!all.available) return panel({ name: "tokens", title: "Tokens of its decoder direction" }, videoSae.empty("No unembedding.", all.why || "The model's unembedding is not part of this run."));
    const [low, high] = all.random_top || [];
    const list = (title, rows) => h("div", {}, h("h3", {}, title), h("ul", { class: "tokens" }, rows.map((row) => h("li", {}, h("code", { dir: "auto" }, row.token.replaceAll("\n", "⏎").replaceAll(" ", "␣")), h("span", { class: "n" }, format.signed(row.logit))))));
    return panel({ name: "tokens", title: "Tokens of its decoder direction", about: low === undefined ? null : `Logits through the unembedding. The best tokens of random directions reach ${format.number(low)} … ${format.number(high)}: below that, read nothing into them.` },
      h("div", { class: "two" }, list("Pushed up", all.top || []), list("Pushed down", all.bottom || [])));
  }
})();
