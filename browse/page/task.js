// Tasks: one question over all its videos, how well the model does, and the latents whose effect on it is claimed.
"use strict";

(() => {
  const { h, format, panel, plainTable } = videoSae;

  const tasksOf = async () => (await videoSae.loadTable("tasks"))?.get("json")?.values || null;
  const baselineMarks = (task) => [
    { at: task.baselines?.chance, title: "chance", kind: "control" }, { at: task.baselines?.answer_frequency, title: "most frequent answer", kind: "control" },
    { at: task.baselines?.question_only, title: "question only", kind: "baseline" }];
  // Latents and sets of latents with a confirmed effect, each counted once, whatever the operations.
  const confirmed = (task) => new Set((task.latents || []).filter((row) => videoSae.isEffect(row.claim)).map((row) => row.target ?? row.latent)).size;
  const accuracyBar = (task) => videoSae.shareBar({ share: task.accuracy, low: task.accuracy_low, high: task.accuracy_high, marks: baselineMarks(task) });

  videoSae.views.tasks = async (root) => {
    const tasks = await tasksOf();
    if (!tasks || !tasks.length) {
      root.append(videoSae.empty("No tasks yet.", "A task is one question over all its videos; the answers come from the stages profile and steer.", "video-sae steer --run RUN"));
      return {};
    }
    root.append(h("h1", {}, "Tasks"), h("p", { class: "quiet lead" }, "One question over all its videos. Point and line: accuracy with its 95 % interval over videos. Grey ticks: chance and the most frequent answer; orange tick: the answer from the question alone."),
      h("div", { class: "panel" }, plainTable("Tasks", [
        { title: "Question", kind: "words", cell: (task, i) => h("a", { href: videoSae.address(["task", i]) }, videoSae.said(task.task)) },
        { title: "Subject", cell: (task) => (task.subject ? videoSae.said(task.subject) : h("span", { class: "quiet" }, "–")) },
        { title: "Accuracy", kind: "n", cell: (task) => format.percent(task.accuracy) }, { title: videoSae.scaleHead("0", "50", "100 %"), kind: "chart-cell", cell: accuracyBar },
        { title: "Frequent answer", kind: "n", cell: (task) => format.percent(task.baselines?.answer_frequency) }, { title: "Question only", kind: "n", cell: (task) => format.percent(task.baselines?.question_only) },
        { title: "Videos", kind: "n", cell: (task) => format.number(task.n_videos) }, { title: "Latents with an effect", kind: "n", about: "Latents and sets of latents whose effect on held-out videos is confirmed, specific or not", cell: (task) => format.number(confirmed(task)) },
      ], tasks)));
    const rows = [...root.querySelectorAll("tbody tr")];
    let at = -1;
    return { keys: (event) => {
      const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
      if (step) { at = Math.max(0, Math.min(rows.length - 1, at + step)); rows[at].querySelector("a").focus(); return true; }
      return false;
    } };
  };

  videoSae.views.task = async (root, { number, query }) => {
    const tasks = await tasksOf(), task = tasks?.[number];
    if (!task) { root.append(videoSae.empty("There is no such task.", tasks ? `This run has ${format.count(tasks.length, "task")}.` : "This run has no tasks yet.")); return {}; }
    const items = task.items || [], grid = h("div", { class: "item-grid" });
    const stills = new Map();
    const filter = h("div", { class: "segmented", role: "group", "aria-label": "Which items" });
    const counts = { all: items.length, right: items.filter((item) => item.right >= 0.5).length, wrong: items.filter((item) => item.right < 0.5).length };
    for (const [key, title] of [["all", "All"], ["right", "Right"], ["wrong", "Wrong"]]) {
      filter.append(h("button", { type: "button", "data-show": key, onclick: () => videoSae.change({ show: key === "all" ? null : key }, { push: true }) }, `${title} ${counts[key]}`));
    }
    const latents = h("div", { class: "claimed" });
    root.append(h("div", { class: "crumbs" }, h("a", { href: "#/tasks" }, "Tasks")), h("h1", {}, videoSae.said(task.task)),
      h("div", { class: "panels" },
        panel({ name: "accuracy", title: "Accuracy" }, h("div", { class: "accuracy" }, h("span", { class: "big" }, format.percent(task.accuracy)), h("div", {}, accuracyBar(task), h("div", { class: "quiet" }, `${task.accuracy_low === null ? "" : `${format.percent(task.accuracy_low)} … ${format.percent(task.accuracy_high)}, `}${format.count(task.n_videos, "video")}`))),
          h("dl", { class: "pairs" }, [["chance", task.baselines?.chance], ["most frequent answer", task.baselines?.answer_frequency], ["question only", task.baselines?.question_only]].filter(([, v]) => !format.absent(v)).map(([title, v]) => [h("dt", {}, title), h("dd", {}, format.percent(v))]))),
        panel({ name: "latents", title: "Latents that change these answers", wide: false }, (task.latents || []).length ? latents : videoSae.empty("No claimed effect on this task.", "Claims are made by steer, on held-out videos next to matched controls.")),
        panel({ name: "items", title: "Items", wide: true, tools: filter }, items.length ? grid : videoSae.empty("No items.", "The model has not been asked yet."))));
    root.querySelector('[data-panel="latents"]').classList.add("broad");

    for (const row of [...(task.latents || [])].sort((a, b) => videoSae.isEffect(b.claim) - videoSae.isEffect(a.claim))) claimed(latents, row);
    function update({ query: q }) {
      const show = q.get("show") || "all";
      filter.querySelectorAll("button").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.show === show)));
      grid.replaceChildren(...items.filter((item) => show === "all" || (item.right >= 0.5) === (show === "right")).map((item) => card(item, stills)));
      videoSae.applyPanel(root, q);
    }
    update({ query });
    return { update, destroy: () => document.body.classList.remove("has-full"), keys: (event) => {
      if (event.key === "Escape") return videoSae.leavePanel(root);
      if (event.key === "u") { videoSae.go(["tasks"]); return true; }
      return false;
    } };
  };

  function card(item, stills) {
    const right = item.right >= 0.5, option = (i) => (typeof i === "number" ? (item.options ? item.options[i] : i) : i);
    const picture = videoSae.thumb(item.still || stills.get(item.video) || `media/stills/${videoSae.fileId(item.video)}/0.jpg`, "");
    return h("a", { class: right ? "item right" : "item wrong", href: videoSae.videoAddress(item.video, { sae: videoSae.state.sae, item: item.item }) }, picture,
      h("span", { class: "item-text" }, videoSae.said(item.video, { class: "item-video" }), h("span", {}, h("b", {}, format.absent(item.predicted) ? "no single answer" : videoSae.said(option(item.predicted))), right ? null : h("span", { class: "quiet" }, " · annotated ", videoSae.said(option(item.answer)))),
        h("span", { class: right ? "tag good" : "tag warn" }, item.right > 0 && item.right < 1 ? `right in ${format.percent(item.right)} of the orders` : right ? "right" : "wrong", h("span", { class: "visually-hidden" }, " answer")), h("span", { class: "quiet" }, ` margin ${format.signed(item.margin)}`)));
  }

  // A claimed latent with its first moments.
  async function claimed(place, row) {
    const tiles = h("div", { class: "tiles" });
    place.append(h("div", { class: "claimed-row" }, h("div", {}, format.absent(row.latent) ? h("b", {}, videoSae.said(row.target), h("span", { class: "quiet" }, ` (${format.count((row.latents || []).length, "latent")})`)) : h("a", { href: videoSae.latentAddress(row.sae, row.latent), class: "latent-number" }, `Latent ${row.latent}`), " ", h("span", { class: videoSae.claimTone(row.claim || "") }, videoSae.said(row.claim)),
      h("div", { class: "quiet" }, `margin ${format.signed(row.delta_margin)} (${format.interval(row.low, row.high)})`), row.rule ? h("div", { class: "quiet" }, videoSae.said(row.rule)) : null), tiles));
    if (format.absent(row.latent)) return;
    const object = await videoSae.latentObject(row.sae, row.latent);
    for (const moment of (object?.moments || []).filter((one) => one.group === "top").slice(0, 4)) {
      tiles.append(videoSae.tile(moment, { label: `Latent ${row.latent}, moment in ${moment.video}`, onclick: () => { location.hash = videoSae.videoAddress(moment.video, { sae: row.sae, latent: row.latent, t: moment.start_s.toFixed(2) }); } }));
    }
  }
})();
