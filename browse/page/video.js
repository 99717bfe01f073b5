// What fires on this input: one video with its latents, questions and answers; and the list of all videos.
"use strict";

(() => {
  const { h, format, panel, plainTable } = videoSae;
  const COLUMNS = [["split", "Split", "words"], ["duration_s", "Seconds", "number"], ["n_frames_model", "Model's frames", "number"], ["width", "Width", "number"], ["height", "Height", "number"],
    ["n_tracks", "Tracks", "number"], ["n_actions", "Actions", "number"], ["n_questions", "Questions", "number"], ["has_file", "File", "flag"]];

  videoSae.views.videos = async (root, { query }) => {
    const table = await videoSae.loadTable("videos");
    if (!table || !table.n_rows) { root.append(videoSae.empty("No videos yet.", "The stage collect reads them; a run that is still being written gets its list when that stage ends.", "video-sae collect --data DIR --model MODEL --out RUN")); return {}; }
    const ids = table.get("id").values, byName = new Map(COLUMNS.filter(([name]) => table.has(name)).map(([name, title, kind]) => [name, { name, title, kind, column: table.get(name), sortable: true, width: "minmax(90px, 1fr)", least: 90 }]));
    const idColumn = { name: "id", title: "Video", kind: "words", column: table.get("id"), sortable: true, width: "minmax(150px, 2fr)", least: 150 };
    const columns = [idColumn, ...byName.values()];
    let state = { sort: "id", descending: false, q: "" }, rows = null;
    const address = (row) => videoSae.videoAddress(ids[row], videoSae.state.sae ? { sae: videoSae.state.sae } : null);
    const grid = videoSae.table({
      label: "Videos", latentOf: (row) => ids[row], onmove: () => {}, onopen: (row) => { location.hash = address(row); },
      cellOf: (row, column) => (column.name === "id" ? h("a", { href: address(row), tabindex: "-1" }, videoSae.said(ids[row])) : null),
      onsort: (name) => videoSae.change({ sort: name, desc: state.sort === name && !state.descending ? "1" : null }, { push: true }),
    });
    const search = h("input", { type: "search", class: "search", placeholder: "Search videos", "aria-label": "Search videos", oninput: () => { videoSae.change({ q: search.value || null }); update({ query: videoSae.read().query }); }, onkeydown: (event) => { if (event.key === "Escape" || event.key === "Enter") grid.root.focus(); event.stopPropagation(); } });
    const total = h("span", { class: "total", role: "status" });
    root.classList.add("view-latents");
    root.append(h("div", { class: "toolbar" }, search, total), h("div", { class: "overview single" }, h("div", { class: "table-side" }, grid.root)));
    function update({ query: q }) {
      state = { sort: byName.has(q.get("sort")) ? q.get("sort") : "id", descending: q.get("desc") === "1", q: q.get("q") || "" };
      if (document.activeElement !== search) search.value = state.q;
      const mask = new Uint8Array(table.n_rows).fill(1);
      if (state.q) videoSae.narrow(mask, idColumn.column, "has", state.q);
      rows = videoSae.kept(videoSae.sorted(state.sort === "id" ? idColumn.column : byName.get(state.sort).column, table.n_rows, state.descending), mask);
      grid.setColumns(columns, { name: state.sort, descending: state.descending });
      grid.show(rows);
      total.textContent = format.count(rows.length, "video");
    }
    update({ query });
    return { update, destroy: () => grid.destroy(), keys: (event) => {
      const steps = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 };
      if (event.key in steps) grid.move(grid.cursor + steps[event.key]);
      else if (event.key === "Enter" && grid.row >= 0) location.hash = address(grid.row);
      else if (event.key === "/") search.focus();
      else return false;
      return true;
    } };
  };

  videoSae.views.video = async (root, { id, sae, query }) => {
    const [video, firing, table] = await Promise.all([videoSae.video(id), sae ? videoSae.videoKey(id).then((key) => videoSae.loadTable(`${sae}/video/${key}`)) : null, sae ? videoSae.loadTable(`${sae}/latents`) : null]);
    if (!video) { root.append(videoSae.empty("Nothing is known of this video.", "It is not part of the run, or its data is still being written."), h("p", { class: "centre" }, h("a", { href: "#/videos" }, "All videos"))); return {}; }
    const player = videoSae.player({ label: `video ${id}`, noLoop: true, ontime });
    const latents = firing ? Array.from(firing.get("latent").values) : [];
    const list = h("div", { class: "firing", role: "listbox", "aria-label": "Latents that fire here", tabindex: "0" });
    const questions = h("div", { class: "questions" });
    let chosen = null;

    root.append(
      h("div", { class: "crumbs" }, h("a", { href: "#/videos" }, "Videos")), h("h1", { class: "video-title" }, videoSae.said(id)),
      h("div", { class: "panels" },
        h("section", { class: "panel film-panel", "aria-label": "Video" }, player.root),
        panel({ name: "firing", title: "What fires here", about: latents.length ? "By the peak of the latent here over its usual level (its mean where it fires)." : null },
          latents.length ? list : videoSae.empty(firing ? "No latent fires on this video." : "Not known which latents fire here.", firing ? null : "This SAE has no codes of this video, or they are still being written.", firing ? null : "video-sae features --run RUN")),
        panel({ name: "questions", title: "Questions and answers", wide: true }, (video.questions || []).length ? questions : videoSae.empty("No questions.", "Questions come from annotation files or from the benchmark's table; the stage steer asks them."))),
    );

    const options = latents.map((latent, i) => {
      const own = sae && videoSae.notes.get("name", `${sae}:${latent}`), label = firing.has("label") ? videoSae.cell(firing.get("label"), i) : null;
      const option = h("div", { role: "option", class: "firing-row", "data-latent": latent, id: `firing-${i}`, onclick: () => choose(latent, { address: true }) },
        table && table.has("thumb") ? videoSae.thumb(videoSae.cell(table.get("thumb"), videoSae.rowOf(table, latent)), "") : null,
        h("a", { href: videoSae.latentAddress(sae, latent), class: "latent-number", tabindex: "-1" }, String(latent)), own || label ? videoSae.said(own || label, { class: "firing-label", title: own || label }) : h("span", { class: "firing-label quiet" }, "no label"),
        h("span", { class: "n", title: "peak over the usual level" }, `${format.number(videoSae.cell(firing.get("ratio"), i))}×`), h("span", { class: "n quiet", title: "tokens" }, format.number(videoSae.cell(firing.get("n_tokens"), i))));
      return option;
    });
    list.append(...options);
    (video.questions || []).forEach((question) => questions.append(questionOf(question, sae, id)));

    function ontime(seconds) {
      clearTimeout(ontime.timer);
      ontime.timer = setTimeout(() => { if (player.film.paused) videoSae.change({ t: seconds > 0.02 ? seconds.toFixed(2) : null }); }, 150);
    }

    function choose(latent, { address = false } = {}) {
      chosen = latents.includes(latent) ? latent : null;
      const i = latents.indexOf(chosen);
      options.forEach((option, j) => option.setAttribute("aria-selected", String(i === j)));
      if (i >= 0) {
        list.setAttribute("aria-activedescendant", `firing-${i}`);
        options[i].scrollIntoView({ block: "nearest" });
        const heat = firing.has("heat") ? firing.get("heat").values[i] : firing.get("json").values[i].heat, peak = videoSae.cell(firing.get("peak"), i);
        player.setHeat(heat, perStep(heat, video.grid, peak), peak);
      }
      if (address) videoSae.change({ latent: chosen });
    }

    // The activation per time step, from the heat: 255 is the peak in this video.
    function perStep(heat, grid, peak) {
      const made = new Array(grid.spans_s.length).fill(0);
      const most = Math.max(...heat.value, 1);
      heat.t.forEach((t, i) => { made[t] = Math.max(made[t], (heat.value[i] / most) * peak); });
      return made;
    }

    function apply(q, first) {
      const wanted = q.get("latent");
      const latent = wanted === null ? latents[0] : Number(wanted.split(":").pop());
      if (first) player.show({ video, heat: null, perFrame: latents.length ? [] : null, clip: video.clip, still: video.still || null, start_s: Number(q.get("t") || 0), autoplay: false, duration_s: video.duration_s });
      else if (q.get("t") !== null && Math.abs(player.time - Number(q.get("t"))) > 0.04 && player.film.paused) player.seek(Number(q.get("t")));
      if (latent !== undefined && latent !== chosen) choose(latent);
      const item = q.get("item");
      questions.querySelectorAll(".question").forEach((node) => {
        const on = node.dataset.item === item;
        node.classList.toggle("current", on);
        if (on && first) node.scrollIntoView({ block: "nearest" });
      });
      videoSae.applyPanel(root, q);
    }
    apply(query, true);

    return {
      update: (next) => apply(next.query, false), theme: () => player.draw(), destroy: () => { clearTimeout(ontime.timer); document.body.classList.remove("has-full"); player.destroy(); },
      keys: (event) => {
        if (event.key === "Escape" && videoSae.leavePanel(root)) return true;
        const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
        if (step && latents.length) { choose(latents[Math.max(0, Math.min(latents.length - 1, latents.indexOf(chosen) + step))], { address: true }); return true; }
        if (event.key === "Enter" && chosen !== null && event.target === list) { videoSae.go([sae, "latent", chosen]); return true; }
        if (event.key === "u") { history.back(); return true; }
        return player.keys(event);
      },
    };
  };

  function questionOf(question, sae, id) {
    const asked = !format.absent(question.margin) || !format.absent(question.predicted);
    const share = format.absent(question.right) ? Number(question.predicted === question.answer) : question.right, right = share > 0.5;
    return h("article", { class: "question", "data-item": question.item },
      h("div", { class: "question-head" }, videoSae.said(question.question, { class: "question-text" }), question.subject ? h("span", { class: "tag" }, videoSae.said(question.subject)) : null,
        asked ? h("span", { class: right ? "tag good" : "tag warn" }, share > 0 && share < 1 ? `right in ${format.percent(share)} of the orders` : right ? "right" : "wrong") : h("span", { class: "tag" }, "not asked"),
        asked ? h("span", { class: "quiet" }, `margin ${format.signed(question.margin)}${format.absent(question.expected_count) ? "" : `, expected count ${format.number(question.expected_count)}`}`) : null),
      h("ol", { class: "options", type: "A" }, question.options.map((option, i) => h("li", { class: [i === question.answer ? "answer" : "", i === question.predicted ? "predicted" : ""].join(" ") },
        videoSae.said(option), i === question.answer ? h("span", { class: "quiet" }, " · annotated") : null, i === question.predicted ? h("span", { class: "quiet" }, " · the model's answer") : null))),
      (question.edited || []).length ? plainTable("Edited answers", [
        { title: "Edit", kind: "words", cell: (row) => { const one = row.latents?.length === 1 ? row.latents[0] : null; return [row.operation, " ", one !== null ? h("a", { href: videoSae.videoAddress(id, { sae: row.sae || sae, latent: one, item: question.item }) }, `latent ${one}`) : videoSae.said(row.target), row.latents?.length > 1 ? h("span", { class: "quiet" }, ` (${format.count(row.latents.length, "latent")})`) : null]; } },
        { title: "Margin", kind: "n", cell: (row) => format.signed(row.delta_margin) }, { title: "Expected count", kind: "n", cell: (row) => format.signed(row.delta_expected_count) },
      ], question.edited) : null);
  }
})();
