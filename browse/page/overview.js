// Every latent as a row and as a point. What is shown (search, filters, order, columns, axes) is in the address.
"use strict";

(() => {
  const { h, format } = videoSae;
  const USUAL = ["thumb", "latent", "top_label", "top_label_kind", "top_auroc", "effect", "effect_subject", "firing_rate"];
  const PLOTS = [
    { key: "association", title: "Association × effect", x: "top_auroc", y: "effect" },
    { key: "density", title: "Density × effect", x: "firing_rate", y: "effect" },
    { key: "density-association", title: "Density × association", x: "firing_rate", y: "top_auroc" },
    { key: "map", title: "Decoder map", x: "map_x", y: "map_y" },
  ];
  const NOT_SHOWN = new Set(["thumb", "map_x", "map_y", "latent"]);

  // The columns of a table of latents as people see them.
  function describe(table) {
    const about = new Map((table.meta.columns || []).map((entry) => [entry.name, entry]));
    const made = [];
    if (table.has("thumb")) made.push({ name: "thumb", title: "", kind: "thumb", width: "48px", least: 48, column: table.get("thumb"), sortable: false });
    made.push({ name: "latent", title: "Latent", kind: "number id", width: "84px", least: 84, column: table.get("latent"), sortable: true, description: "Number of the latent" });
    const names = [...new Set(["top_label", ...(table.meta.columns || []).map((entry) => entry.name), ...table.names])];
    for (const name of names) {
      if (NOT_SHOWN.has(name) || !table.has(name)) continue;
      const entry = about.get(name) || {}, column = table.get(name);
      if (column.type === "json") continue;
      const kind = column.type === "number" ? "number" : column.type === "flag" ? "flag" : "words";
      const wide = name === "top_label";
      made.push({
        name, kind: wide ? "words label" : kind, column, sortable: true, title: capital(entry.title || name.replaceAll("_", " ")) + (entry.unit && name === "effect" ? ` (${entry.unit})` : ""),
        description: [entry.description, entry.unit ? `(${entry.unit})` : ""].filter(Boolean).join(" "), group: entry.group,
        signed: /effect|correlation|gap/.test(name) && !/_q|method/.test(name),
        ...sizes(name, wide, kind),
      });
    }
    return made;
  }
  videoSae.describeColumns = describe;

  const capital = (text) => (text.length < 2 ? text : text[0].toUpperCase() + text.slice(1));

  // Widths: `width` for the grid, `least` in pixels before the table scrolls sideways.
  function sizes(name, wide, kind) {
    const least = wide ? 190 : name === "effect" ? 156 : kind === "words" ? 104 : kind === "flag" ? 72 : 112;
    const share = wide ? 3 : kind === "words" ? 1.4 : 0.5;
    return { least, width: kind === "flag" ? `${least}px` : `minmax(${least}px, ${share}fr)` };
  }

  videoSae.views.latents = async (root, { sae, query }) => {
    const table = await videoSae.loadTable(`${sae}/latents`);
    if (!table) {
      root.append(videoSae.empty("This SAE has no table of latents yet.", (await videoSae.errorOf(`${sae}/latents`)) || "It is written by the stage features; a run that is still being written gets it when that stage ends.", "video-sae features --run RUN"));
      return {};
    }
    const n = table.n_rows, all = describe(table), latents = table.get("latent").values;
    const byName = new Map(all.map((column) => [column.name, column]));
    const orders = new Map();
    let state = null, rows = null, columnsKey = null;

    const grid = videoSae.table({
      label: `Latents of ${sae}`,
      latentOf: (row) => latents[row],
      cellOf,
      onsort: (name) => {
        const first = byName.get(name).kind.startsWith("number") && name !== "latent";
        const descending = state.sort === name ? !state.descending : first;
        videoSae.change({ sort: name, desc: descending ? "1" : null, at: null }, { push: true });
      },
      onopen: open,
      onmove: (row) => { videoSae.change({ at: latents[row] }); plot.mark(row); },
    });
    const plot = videoSae.scatter({
      tip, onopen: open,
      onzoom: ({ x, y }) => {
        const axes = axesOf(state), rest = state.filters.filter(({ column }) => column !== axes.x && column !== axes.y);
        const limits = [[axes.x, x], [axes.y, y]].flatMap(([column, [low, high]]) => [
          { column, op: "ge", value: String(Number(low.toPrecision(4))) }, { column, op: "le", value: String(Number(high.toPrecision(4))) }]);
        setFilters([...rest, ...limits]);
      },
    });

    const search = h("input", { type: "search", class: "search", placeholder: "Search labels, tokens, notes, numbers", "aria-label": "Search latents", autocomplete: "off", spellcheck: "false" });
    let typing = null;
    search.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => { videoSae.change({ q: search.value || null, at: null }); update(videoSae.read().query); }, 90); });
    search.addEventListener("keydown", (event) => {
      if (event.key === "Escape" || event.key === "Enter") { event.preventDefault(); grid.root.focus(); }
      event.stopPropagation();
    });
    const total = h("span", { class: "total", role: "status" });
    const filterable = all.filter(({ name }) => name !== "thumb");
    const bar = videoSae.filterBar({ columns: [...filterable, ...mapColumns()], filters: () => state.filters, onchange: setFilters, presets: videoSae.presets(table) });
    const plotSelect = h("select", { "aria-label": "What the plot shows", onchange: () => videoSae.change({ plot: plotSelect.value, x: null, y: null }, { push: true }) });
    const legend = h("div", { class: "legend" });
    const plotColumns = [...all, ...mapColumns()].filter(({ column }) => column.type === "number");
    for (const entry of PLOTS) if (table.has(entry.x) && table.has(entry.y)) plotSelect.append(h("option", { value: entry.key }, entry.title));
    const axisSelect = (axis) => {
      const select = h("select", { "aria-label": axis === "x" ? "Horizontal axis" : "Vertical axis", onchange: () => videoSae.change({ [axis]: select.value, plot: null }, { push: true }) });
      for (const entry of plotColumns) select.append(h("option", { value: entry.name }, entry.title));
      return select;
    };
    const axisX = axisSelect("x"), axisY = axisSelect("y");
    const hint = h("span", { class: "quiet hint" }, "Drag to zoom, click to open.");

    root.append(
      videoSae.runNote(),
      h("div", { class: "toolbar" }, search, bar.root, total, h("div", { class: "tools" }, columnsTool(), viewsTool(), exportTool())),
      h("div", { class: "overview" }, h("section", { class: "table-side", "aria-label": "Table of latents" }, grid.root),
        plotSelect.options.length ? h("section", { class: "plot-side", "aria-label": "Plot of latents" },
          h("div", { class: "plot-head" }, plotSelect, h("span", { class: "axes" }, axisX, "×", axisY)), plot.root,
          h("div", { class: "plot-foot" }, legend, hint)) : null),
    );

    function mapColumns() {
      return ["map_x", "map_y"].filter((name) => table.has(name)).map((name) => ({ name, title: name === "map_x" ? "Map x" : "Map y", column: table.get(name), kind: "number" }));
    }

    function axesOf({ plot: key, x, y }) {
      if (x || y) return { x: x || "top_auroc", y: y || "effect" };
      const available = PLOTS.filter((entry) => table.has(entry.x) && table.has(entry.y) && hasValues(entry.x) && hasValues(entry.y));
      return available.find((entry) => entry.key === key) || available[0] || PLOTS.find((entry) => table.has(entry.x) && table.has(entry.y));
    }
    const valued = new Map();
    function hasValues(name) {
      if (!valued.has(name)) valued.set(name, table.get(name).values.some((v) => v === v));
      return valued.get(name);
    }

    function parse(q) {
      const sort = q.get("sort");
      const usualSort = table.has("effect") && hasValues("effect") ? "effect" : table.has("top_auroc") && hasValues("top_auroc") ? "top_auroc" : "latent";
      return {
        sort: byName.has(sort) ? sort : usualSort, given: byName.has(sort), descending: byName.has(sort) ? q.get("desc") === "1" : usualSort === "top_auroc",
        filters: videoSae.readFilters(q), q: q.get("q") || "", columns: (q.get("cols") || "").split(",").filter((name) => byName.has(name)),
        plot: q.get("plot"), x: table.has(q.get("x")) ? q.get("x") : null, y: table.has(q.get("y")) ? q.get("y") : null, at: q.get("at"),
      };
    }

    function orderOf({ sort, descending }) {
      const key = `${sort} ${descending}`;
      if (!orders.has(key)) orders.set(key, videoSae.sorted(byName.get(sort).column, n, descending));
      return orders.get(key);
    }

    function noted() {
      const texts = new Map();
      for (const kind of ["name", "note"]) {
        for (const [key, value] of videoSae.notes.entries(kind)) {
          const at = key.lastIndexOf(":");
          if (key.slice(0, at) === sae) texts.set(Number(key.slice(at + 1)), `${texts.get(Number(key.slice(at + 1))) || ""} ${value}`.toLowerCase());
        }
      }
      return texts;
    }

    function update(q) {
      const begun = performance.now();
      state = parse(q);
      if (document.activeElement !== search) search.value = state.q;
      const mask = new Uint8Array(n).fill(1);
      for (const { column, op, value } of state.filters) videoSae.narrow(mask, table.get(column), op, value);
      const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
      if (words.length) videoSae.search(mask, table, words, noted());
      rows = videoSae.kept(orderOf(state), mask);
      videoSae.state.order = { sae, rows, latents };
      const shown = state.columns.length ? state.columns : USUAL.filter((name) => byName.has(name));
      const key = `${shown} ${state.sort} ${state.descending}`;
      if (key !== columnsKey) grid.setColumns(shown.map((name) => byName.get(name)), { name: state.sort, descending: state.descending });
      if (key !== columnsKey) grid.top();
      columnsKey = key;
      grid.show(rows);
      grid.place(state.at === null ? -1 : rowOf(Number(state.at)));
      total.replaceChildren(h("b", {}, format.number(rows.length)), rows.length === n ? ` latents` : ` of ${format.number(n)} latents`);
      bar.update();
      drawPlot();
      videoSae.state.lastUpdate_ms = performance.now() - begun;
      emptyHint();
    }

    function rowOf(latent) { return latents[latent] === latent ? latent : latents.indexOf(latent); }

    const nothing = h("div", { class: "nothing", hidden: true }, videoSae.empty("No latent fits these filters and this search.", "Remove a filter above, or clear the search."));
    grid.root.append(nothing);
    function emptyHint() { nothing.hidden = rows.length > 0; }

    function drawPlot() {
      const axes = axesOf(state);
      if (!axes) return;
      const x = table.get(axes.x), y = table.get(axes.y);
      const kind = table.has("top_label_kind") ? table.get("top_label_kind") : null;
      const words = kind ? kind.words : [];
      const colours = [videoSae.token("--unlabelled"), ...words.map((_, i) => videoSae.token(`--kind-${i % 10}`))];
      const named = (name) => plotColumns.find((entry) => entry.name === name)?.title || name;
      if (!state.x && !state.y && axes.key) plotSelect.value = axes.key; else plotSelect.selectedIndex = -1;
      axisX.value = axes.x;
      axisY.value = axes.y;
      plot.show({ x, y, rows, kind, colours, xName: named(axes.x), yName: named(axes.y), log: { x: isLog(axes.x), y: isLog(axes.y) } });
      plot.mark(grid.row);
      legend.replaceChildren(...words.map((word, i) => h("span", { class: `key kind-${i % 10}` }, videoSae.said(word))), h("span", { class: "key unlabelled" }, "no label"));
    }
    const isLog = (name) => /rate|n_tokens|n_videos|_q$|q_value/.test(name);

    function cellOf(row, column) {
      if (column.name === "thumb") return videoSae.thumb(videoSae.cell(column.column, row), "");
      if (column.name === "latent") return h("a", { href: videoSae.latentAddress(sae, latents[row]), tabindex: "-1" }, String(latents[row]));
      if (column.name === "top_label") {
        const name = videoSae.notes.get("name", `${sae}:${latents[row]}`), label = videoSae.cell(column.column, row);
        if (name) return h("span", {}, videoSae.said(name, { class: "own-name", title: name }), label ? h("span", { class: "quiet" }, " · ", videoSae.said(label)) : null);
        if (label === null) return h("span", { class: "none" }, "no label");
        return isName(row) ? videoSae.said(label, { title: label }) : videoSae.said(label, { class: "not-name", title: `${label}: the best label, but not a name` });
      }
      if (column.name === "effect" && column.column.type === "number") return effectBar(column.column.values[row]);
      return null;
    }

    const isName = (row) => !table.has("labelled") || table.get("labelled").values[row] === 1;
    let widest = null;
    function effectBar(value) {
      if (Number.isNaN(value)) return h("span", { class: "none" }, "–");
      if (widest === null) widest = table.get("effect").values.reduce((most, v) => (Math.abs(v) > most ? Math.abs(v) : most), 1e-9);
      const share = Math.min(1, Math.abs(value) / widest) * 50;
      return h("span", { class: "effect-cell" }, h("span", { class: "effect-way", "aria-hidden": "true" },
        h("span", { class: value < 0 ? "effect-bar minus" : "effect-bar plus", style: { width: `${share}%`, [value < 0 ? "right" : "left"]: "50%" } })),
        h("span", { class: "effect-number" }, format.signed(value)));
    }

    function tip(row) {
      const label = table.has("top_label") ? videoSae.cell(table.get("top_label"), row) : null, axes = axesOf(state);
      return h("div", { class: "tip-body" }, table.has("thumb") ? videoSae.thumb(videoSae.cell(table.get("thumb"), row), "") : null,
        h("div", {}, h("b", {}, `Latent ${latents[row]}`), h("div", {}, label === null ? "no label" : videoSae.said(label)),
          h("div", { class: "quiet" }, `${format.number(table.get(axes.x).values[row])} × ${format.number(table.get(axes.y).values[row])}`)));
    }

    function open(row) {
      videoSae.change({ at: latents[row] });
      videoSae.go([sae, "latent", latents[row]]);
    }

    function setFilters(filters) { videoSae.change({ f: filters.length ? videoSae.writeFilters(filters) : null, at: null }, { push: true }); }

    function columnsTool() {
      return videoSae.popover("Columns", () => {
        const shown = new Set(state.columns.length ? state.columns : USUAL);
        const groups = Map.groupBy ? Map.groupBy(all.filter(({ name }) => name !== "latent"), (column) => column.group || (column.name === "thumb" ? "picture" : "other")) : new Map([["columns", all.filter(({ name }) => name !== "latent")]]);
        const toggle = (name, on) => {
          if (on) shown.add(name); else shown.delete(name);
          videoSae.change({ cols: all.map((column) => column.name).filter((one) => shown.has(one)).join(",") });
          update(videoSae.read().query);
        };
        return [
          ...[...groups].map(([group, list]) => h("fieldset", {}, h("legend", {}, group), list.map((column) =>
            h("label", { title: column.description }, h("input", { type: "checkbox", checked: shown.has(column.name), onchange: (event) => toggle(column.name, event.target.checked) }), column.title || "picture")))),
          h("button", { type: "button", class: "text-button", onclick: () => { videoSae.change({ cols: null }); update(videoSae.read().query); } }, "Usual columns"),
        ];
      }, { class: "columns-form" });
    }

    function viewsTool() {
      return videoSae.popover("Views", (close) => {
        const name = h("input", { "aria-label": "Name of the view", placeholder: "Name this view", required: true, maxlength: 80, dir: "auto" });
        const saved = videoSae.notes.entries("view").filter(([, view]) => view.sae === sae);
        const save = async (event) => {
          event.preventDefault();
          await videoSae.notes.set("view", name.value.trim(), { sae, hash: location.hash });
          videoSae.announce("View saved");
          close();
        };
        return [
          h("form", { class: "row", onsubmit: save }, name, h("button", { type: "submit", class: "primary" }, "Save")),
          saved.length ? h("ul", { class: "views" }, saved.map(([key, view]) => h("li", {},
            h("a", { href: view.hash, onclick: close }, videoSae.said(key)),
            videoSae.iconButton("close", `Delete the view ${key}`, async () => { await videoSae.notes.set("view", key, null); close(); }))))
            : h("p", { class: "quiet" }, "No saved views yet. A view is the search, filters, order, columns and plot as they are now; its address can be sent to others."),
        ];
      }, { class: "views-form" });
    }

    function exportTool() {
      return videoSae.popover("Export", (close) => {
        const shown = () => (state.columns.length ? state.columns : USUAL).filter((name) => byName.has(name) && name !== "thumb");
        const list = (names) => [...new Set(["latent", ...names])].map((name) => ({ name, column: table.get(name) }));
        const every = table.names.filter((name) => table.get(name).type !== "json" && name !== "thumb");
        const file = `${sae}-latents`;
        const item = (text, make) => h("button", { type: "button", class: "menu-item", onclick: () => { make(); close(); } }, text);
        return [
          h("p", { class: "quiet" }, `The ${format.count(rows.length, "latent")} shown, in this order.`),
          item("CSV, columns shown", () => videoSae.download(`${file}.csv`, [videoSae.csv(list(shown()), rows)], "text/csv")),
          item("CSV, all columns", () => videoSae.download(`${file}.csv`, [videoSae.csv(list(every), rows)], "text/csv")),
          item("Parquet, columns shown", () => videoSae.download(`${file}.parquet`, videoSae.parquet(list(shown()), rows), "application/vnd.apache.parquet")),
          item("Parquet, all columns", () => videoSae.download(`${file}.parquet`, videoSae.parquet(list(every), rows), "application/vnd.apache.parquet")),
        ];
      }, { class: "export-form" });
    }

    function keys(event) {
      const steps = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1, PageDown: grid.page(), PageUp: -grid.page() };
      if (event.key in steps) { grid.move(grid.cursor + steps[event.key]); return true; }
      if (event.key === "Home" || event.key === "g") { grid.move(0); return true; }
      if (event.key === "End" || event.key === "G") { grid.move(rows.length - 1); return true; }
      if (event.key === "Enter" || event.key === "o") { if (grid.row >= 0) open(grid.row); return grid.row >= 0; }
      if (event.key === "/") { search.focus(); search.select(); return true; }
      return false;
    }

    update(query);
    requestAnimationFrame(() => setTimeout(() => performance.mark("useful"))); // after it is painted
    return { update: (next) => update(next.query), keys, theme: () => { plot.redraw(); drawPlot(); }, destroy: () => { grid.destroy(); plot.destroy(); } };
  };

  // What the run is, and which of its stages are not finished.
  videoSae.runNote = () => {
    const { note, stages } = videoSae.state.run;
    const open = stages.filter(({ state }) => state !== "finished");
    if (!note && !open.length) return "";
    return h("div", { class: "run-note" }, note ? videoSae.said(note) : null,
      open.length ? h("span", { class: "tag warn", title: "Load the page again to see what has been written since." }, `not finished: ${open.map(({ stage }) => stage).join(", ")}`) : null);
  };

  // A small picture; a quiet square where there is none or the file is missing.
  videoSae.thumb = (path, alt) => {
    const blank = () => h("span", { class: "thumb blank", "aria-hidden": "true" });
    if (!path) return blank();
    const image = h("img", { class: "thumb", src: path, alt, loading: "lazy", decoding: "async" });
    image.addEventListener("error", () => image.replaceWith(blank()));
    return image;
  };
})();
