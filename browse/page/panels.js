// Panels: a titled part of a page that can fill the window. And the parts that several views show.
"use strict";

(() => {
  const { h, format } = videoSae;

  // A panel with a title, a sentence that says how to read it, and its content; `name` is its name in the address.
  videoSae.panel = ({ name, title, about, wide, tools }, ...content) => {
    const body = h("div", { class: "panel-body" }, content);
    const button = videoSae.iconButton("full", `${title}: full size`, () => {
      const on = !root.classList.contains("full");
      videoSae.change({ panel: on ? name : null });
      set(on);
    });
    const root = h("section", { class: wide ? "panel wide" : "panel", "aria-label": title, "data-panel": name },
      h("div", { class: "panel-head" }, h("h2", {}, title), tools || null, h("span", { class: "spring" }), button),
      about ? h("p", { class: "quiet about" }, about) : null, body);
    const set = (on) => {
      if (on) document.querySelectorAll(".panel.full").forEach((one) => { if (one !== root) one.setFull(false); });
      root.classList.toggle("full", on);
      document.body.classList.toggle("has-full", on);
      button.replaceChildren(videoSae.icon(on ? "close" : "full"));
      button.setAttribute("aria-label", on ? `${title}: usual size` : `${title}: full size`);
      button.title = on ? "Usual size (Esc)" : "Full size";
      root.querySelectorAll(".chart").forEach((chart) => chart.theme?.());
    };
    root.setFull = set;
    return root;
  };

  // Which panel fills the window, after the address.
  videoSae.applyPanel = (root, query) => {
    const name = query.get("panel");
    document.body.classList.remove("has-full");
    root.querySelectorAll(".panel").forEach((panel) => panel.setFull?.(panel.dataset.panel === name && name !== null));
    document.body.classList.toggle("has-full", Boolean(root.querySelector(".panel.full")));
  };
  videoSae.leavePanel = (root) => {
    const full = root.querySelector(".panel.full");
    if (!full) return false;
    full.setFull(false);
    document.body.classList.remove("has-full");
    videoSae.change({ panel: null });
    return true;
  };

  // A plain table: columns [{title, cell(row), kind, about}].
  videoSae.plainTable = (label, columns, rows, { rowProps } = {}) =>
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, h("table", {},
      h("thead", {}, h("tr", {}, columns.map((column) => h("th", { scope: "col", class: column.kind || null, title: column.about }, column.title)))),
      h("tbody", {}, rows.map((row, i) => h("tr", rowProps ? rowProps(row, i) : {}, columns.map((column) => h("td", { class: column.kind || null }, column.cell(row, i))))))));

  videoSae.latentObject = async (sae, latent) => {
    if (!Number.isInteger(latent) || latent < 0) return null;
    const table = await videoSae.loadTable(`${sae}/latents`);
    const shard = await videoSae.load(`${sae}/latent/${Math.floor(latent / (table?.meta.latents_per_shard || 128))}`);
    if (!shard?.has("json")) return null;
    return shard.get("json").values.find((one) => one && one.latent === latent) || null;
  };

  // A latent of the same SAE as a link with its picture and label.
  videoSae.latentLink = (sae, table, latent, extra) => {
    const row = table ? rowOf(table, latent) : -1;
    const own = videoSae.notes.get("name", `${sae}:${latent}`);
    const label = row >= 0 && table.has("top_label") ? videoSae.cell(table.get("top_label"), row) : null;
    return h("a", { class: "latent-link", href: videoSae.latentAddress(sae, latent) },
      row >= 0 && table.has("thumb") ? videoSae.thumb(videoSae.cell(table.get("thumb"), row), "") : null,
      h("span", { class: "latent-link-text" }, h("span", { class: "latent-number" }, String(latent)), own || label ? videoSae.said(own || label, { class: "quiet" }) : h("span", { class: "quiet" }, "no label")),
      extra ? h("span", { class: "latent-extra" }, extra) : null);
  };
  const rowOf = (table, latent) => { const all = table.get("latent").values; return all[latent] === latent ? latent : all.indexOf(latent); };
  videoSae.rowOf = rowOf;

  // A claim that holds, one that speaks against the latent, and one that says nothing look different.
  videoSae.claimTone = (claim) => (/not specific|specificity not tested/.test(claim) ? "tag accent" : /specific/.test(claim) ? "tag good" : /damage/.test(claim) ? "tag warn" : "tag");

  videoSae.isEffect = (claim) => /^((not )?specific|specificity not tested)$/.test(claim || "");

  videoSae.methodTag = (method) => (method ? h("span", { class: method === "exact" ? "tag accent" : "tag", title: method === "exact" ? "The edited model was run." : "Estimated, not run: confirm it with an exact effect." }, method) : null);

  videoSae.GROUPS = {
    top: ["Top", "the strongest moments"], q5: ["80–100 %", "of its activation, sorted by strength"], q4: ["60–80 %", ""], q3: ["40–60 %", ""], q2: ["20–40 %", ""], q1: ["0–20 %", ""],
    random: ["Random", "tokens on which it fires, drawn at random"],
  };

  // Rows of moments by group, each with its share of the latent's activation.
  videoSae.momentRows = ({ moments, groups, onpick }) => {
    const byGroup = new Map();
    for (const moment of moments) { if (!byGroup.has(moment.group)) byGroup.set(moment.group, []); byGroup.get(moment.group).push(moment); }
    const order = [...new Set([...Object.keys(videoSae.GROUPS), ...byGroup.keys()])].filter((name) => byGroup.has(name));
    const tiles = new Map();
    const root = h("div", { class: "moment-rows" }, order.map((name, i) => {
      const [title, about] = videoSae.GROUPS[name] || [name, ""], info = (groups || []).find((group) => group.group === name);
      return h("div", { class: "moment-row", "data-group": name },
        h("div", { class: "moment-group", title: about }, h("b", {}, title), name === "random" ? h("span", { class: "quiet" }, "drawn from all of it") : info && !format.absent(info.mass_share) ? h("span", { class: "mass" },
          h("span", { class: "mass-bar", "aria-hidden": "true" }, h("span", { style: { width: `${Math.min(100, info.mass_share * 100)}%` } })), h("span", {}, `${format.percent(info.mass_share, 1)} of its activation`)) : null,
          info?.n_tokens ? h("span", { class: "quiet" }, format.count(info.n_tokens, "token")) : null),
        h("div", { class: "tiles" }, byGroup.get(name).map((moment) => {
          const tile = videoSae.tile(moment, {
            label: `${title}, moment ${moment.rank + 1}: ${moment.video} at ${format.seconds(moment.start_s)}, activation ${format.number(moment.activation)}`,
            onclick: () => onpick(moment),
          });
          tile.append(h("span", { class: "tile-number" }, format.number(moment.activation)));
          tiles.set(moment, tile);
          return tile;
        })));
    }));
    const ordered = order.flatMap((name) => byGroup.get(name));
    return {
      root, ordered, order, firstOf: (name) => byGroup.get(name)?.[0] || null,
      mark: (moment) => tiles.forEach((tile, one) => tile.setAttribute("aria-pressed", String(one === moment))),
    };
  };

  // Play a moment in a player.
  videoSae.playMoment = async (player, moment, { peak, autoplay }) => {
    const video = await videoSae.video(moment.video);
    if (!video) return false;
    player.show({ video, heat: moment.heat, perFrame: moment.per_frame?.length ? moment.per_frame : null, peak, moment, clip: moment.media, still: moment.still, start_s: moment.start_s, autoplay, duration_s: video.duration_s });
    return true;
  };
})();
