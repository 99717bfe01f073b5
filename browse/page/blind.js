// Blind test: which of two moments belongs to the latent of the references? Latents of the trained SAE and of its
// frozen-decoder baseline are mixed, and which is which is loaded only when all trials are answered.
// Source: Zimmermann, Klein & Brendel 2023, "Scale alone does not improve mechanistic interpretability in vision models".
"use strict";

(() => {
  const { h, format } = videoSae;

  videoSae.views.blind = async (root, { sae }) => {
    const shard = sae ? await videoSae.load(`${sae}/blind`) : null, trials = shard?.meta.trials || [], why = shard?.meta.why || shard?.meta.error;
    if (!trials.length) {
      root.append(videoSae.empty("No blind test for this SAE.", why || "It needs moments of the trained SAE and of its frozen-decoder baseline: train a baseline, then run features again.", why ? null : "video-sae features --run RUN"));
      return {};
    }
    let answers = [], at = 0, begun = 0, players = [];
    const stage = h("div", { class: "blind" });
    root.append(h("h1", {}, "Blind test"), stage);
    const order = shuffled(trials.length);
    intro();

    function intro() {
      const earlier = videoSae.notes.entries("blind").filter(([, one]) => one.sae === sae);
      videoSae.put(stage, h("div", { class: "panel prose" },
        h("p", {}, "Each trial shows moments on which a latent fires strongly, and moments on which it does not. Then two new moments: choose the one on which it fires. Half of the latents are of the trained SAE, half of a baseline whose decoder was never trained; which is which is hidden until the end."),
        h("p", {}, `${format.count(trials.length, "trial")}. Keys: `, h("kbd", {}, "1"), " the first, ", h("kbd", {}, "2"), " the second, and ", h("kbd", {}, "t"), " or ", h("kbd", {}, "f"), " for your guess whether the latent is trained or of the frozen baseline."),
        h("button", { type: "button", class: "primary", onclick: () => trial() }, "Begin"),
        earlier.length ? h("div", {}, h("h2", { class: "spaced" }, "Earlier answers"), h("ul", {}, earlier.map(([key, one]) => h("li", {}, `${one.name || "somebody"}: ${one.n_right} of ${one.n} right (${format.percent(one.low)} … ${format.percent(one.high)})`, h("span", { class: "visually-hidden" }, key))))) : null));
    }

    function trial() {
      stopPlayers();
      if (at >= trials.length) { result(); return; }
      const one = trials[order[at]];
      const flip = answers.length % 2 === 0 ? false : Math.random() < 0.5;
      const query = flip ? [1, 0] : [0, 1];
      const row = (title, moments) => h("div", { class: "reference" }, h("h2", {}, title), h("div", { class: "reference-films" }, moments.map((moment, i) => film(moment, `${title}, ${i + 1}`))));
      const choice = (place) => {
        const made = h("div", { class: "choice" }, film(one.query[query[place]], place === 0 ? "First moment" : "Second moment"),
          h("button", { type: "button", "data-choice": place + 1, onclick: () => answer(place) }, `${place === 0 ? "First" : "Second"} `, h("kbd", {}, String(place + 1))));
        return made;
      };
      const guess = h("div", { class: "guess", hidden: true });
      videoSae.put(stage, 
        h("div", { class: "progress" }, h("span", {}, `Trial ${at + 1} of ${trials.length}`), h("progress", { max: trials.length, value: at, "aria-label": "Trials done" })),
        row("It fires on these", one.reference_positive), row("It does not fire on these", one.reference_negative),
        h("h2", { class: "spaced" }, "On which of these two does it fire?"), h("div", { class: "choices" }, choice(0), choice(1)), guess);
      begun = performance.now();
      current = { one, query, guess, place: null };
    }

    let current = null;
    function answer(place) {
      if (!current || current.place !== null) return;
      current.place = place;
      stage.querySelectorAll("[data-choice]").forEach((button) => { button.disabled = true; button.setAttribute("aria-pressed", String(Number(button.dataset.choice) === place + 1)); });
      current.guess.hidden = false;
      current.guess.replaceChildren(h("span", {}, "And your guess: is this latent trained, or of the frozen baseline? "),
        h("button", { type: "button", "data-guess": "trained", onclick: () => guessed("trained") }, "Trained ", h("kbd", {}, "t")),
        h("button", { type: "button", "data-guess": "baseline", onclick: () => guessed("baseline") }, "Frozen baseline ", h("kbd", {}, "f")));
      current.guess.querySelector("button").focus();
    }
    function guessed(source) {
      answers.push({ id: current.one.id, answer: current.query[current.place], guess: source, seconds: Number(((performance.now() - begun) / 1000).toFixed(2)) });
      current = null;
      at += 1;
      trial();
    }

    async function result() {
      const keyShard = await videoSae.load(`${sae}/blind-key`);
      if (!keyShard) { videoSae.put(stage, videoSae.empty("The key of this test is missing.", "Your answers are kept: export them below."), exportButton({ sae, answers })); return; }
      const key = new Map(keyShard.meta.trials.map((one) => [one.id, one]));
      const scored = answers.map((one) => ({ ...one, right: one.answer === key.get(one.id).answer, source: key.get(one.id).source, guessed: one.guess === key.get(one.id).source, latent: key.get(one.id).latent, of: key.get(one.id).sae }));
      const share = (list, field) => { const n = list.length, hits = list.filter((one) => one[field]).length, [low, high] = videoSae.wilson(hits, n); return { hits, n, share: n ? hits / n : null, low, high }; };
      const all = share(scored, "right"), trained = share(scored.filter((one) => one.source === "trained"), "right"), baseline = share(scored.filter((one) => one.source === "baseline"), "right"), told = share(scored, "guessed");
      const saved = { sae, n: all.n, n_right: all.hits, low: all.low, high: all.high, n_told: told.hits, told_low: told.low, told_high: told.high, answers };
      const line = (title, one, chance = 0.5) => h("tr", {}, h("th", { scope: "row" }, title), h("td", { class: "n" }, `${one.hits} of ${one.n}`), h("td", { class: "n" }, format.percent(one.share)), h("td", { class: "chart-cell" }, videoSae.whisker({ low: one.low, high: one.high, point: one.share, from: 0, to: 1, zero: chance })), h("td", { class: "n ci" }, `${format.percent(one.low)} … ${format.percent(one.high)}`));
      const could = told.low > 0.5 ? "You could tell the trained latents from the baseline's." : told.high < 0.5 ? "You took the baseline for the trained SAE: you could tell them apart, but the wrong way round." : "These answers do not show that you could tell trained latents from the baseline's: the interval includes chance.";
      const name = h("input", { "aria-label": "Your name", placeholder: "Your name (optional)", maxlength: 80, dir: "auto" });
      const status = h("span", { role: "status", class: "quiet" });
      videoSae.put(stage, h("div", { class: "panel" }, h("h2", {}, "Your result"),
        h("table", { class: "result" }, h("thead", {}, h("tr", {}, ["", "Right", "Share", "", "95 % interval (Wilson)"].map((text, i) => h("th", { scope: "col", class: i && i !== 3 ? "n" : null }, text)))), h("tbody", {}, line("All trials", all), line("Latents of the trained SAE", trained), line("Latents of the baseline", baseline), line("Trained or baseline told apart", told))),
        h("p", { class: "could" }, h("b", {}, could)), h("p", { class: "quiet" }, "Half of the trials are right by chance (the vertical line)."),
        h("div", { class: "row" }, name, h("button", { type: "button", class: "primary", onclick: async () => { await videoSae.notes.set("blind", `${sae}:${randomId()}`, { ...saved, name: name.value.trim() || null }); status.textContent = "Saved"; } }, "Save"), exportButton(saved), h("button", { type: "button", onclick: () => { answers = []; at = 0; trial(); } }, "Again"), status)),
      h("div", { class: "panel spaced" }, h("h2", {}, "Trial by trial"), videoSae.plainTable("Trials", [
        { title: "Latent", cell: (one) => h("a", { href: videoSae.latentAddress(one.of, one.latent) }, String(one.latent)) }, { title: "Of", cell: (one) => (one.source === "trained" ? "trained SAE" : "frozen baseline") },
        { title: "You", cell: (one) => h("span", { class: one.right ? "tag good" : "tag warn" }, one.right ? "right" : "wrong") }, { title: "Your guess", cell: (one) => h("span", { class: one.guessed ? "tag good" : "tag warn" }, one.guess === "trained" ? "trained" : "frozen baseline") }, { title: "Seconds", kind: "n", cell: (one) => format.number(one.seconds) }], scored)));
    }

    const exportButton = (saved) => h("button", { type: "button", onclick: () => videoSae.download("blind-answers.json", [JSON.stringify(saved, null, 1)], "application/json") }, "Export answers");

    // A moment that plays by itself, without heat: the heat would give the answer away.
    function film(moment, label) {
      const place = h("div", { class: "blind-film" });
      const shown = moment.media ? h("video", { src: moment.media, muted: true, playsinline: true, preload: "metadata", "aria-label": label }) : moment.still ? h("img", { src: moment.still, alt: label }) : h("div", { class: "stage blank" });
      place.append(shown);
      if (moment.media) {
        const stop = Math.max(moment.stop_s, moment.start_s + 0.5);
        shown.addEventListener("loadedmetadata", () => { shown.currentTime = moment.start_s; shown.play().catch(() => {}); });
        shown.addEventListener("timeupdate", () => { if (shown.currentTime >= stop) shown.currentTime = moment.start_s; });
        shown.addEventListener("ended", () => { shown.currentTime = moment.start_s; shown.play().catch(() => {}); });
        shown.addEventListener("error", () => { if (moment.still) shown.replaceWith(h("img", { src: moment.still, alt: label })); });
        players.push(shown);
      }
      return place;
    }
    function stopPlayers() { players.forEach((one) => { one.pause(); one.removeAttribute("src"); one.load(); }); players = []; }

    return { destroy: stopPlayers, keys: (event) => {
      if (current && current.place === null && (event.key === "1" || event.key === "2")) { answer(Number(event.key) - 1); return true; }
      if (current && current.place !== null && (event.key === "t" || event.key === "f")) { guessed(event.key === "t" ? "trained" : "baseline"); return true; }
      return false;
    } };
  };

  function shuffled(n) {
    const order = Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) { const j = Math.floor(Math.random() * (i + 1)); [order[i], order[j]] = [order[j], order[i]]; }
    return order;
  }
  const randomId = () => Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
})();
