// Notes, names, judgements, saved views and blind answers: in the run where the page is served, otherwise in this
// browser's own storage, from which they can be downloaded.
"use strict";

(() => {
  const KINDS = { note: "notes", name: "names", judgement: "judgements", view: "views", blind: "blind" };
  const empty = () => ({ version: 0, notes: {}, names: {}, judgements: {}, views: {}, blind: {} });
  let all = empty();
  let version = 0; // of what is held here; changes whenever anything does
  const listeners = new Set();

  const storageKey = () => `video-sae notes ${videoSae.state.run?.name || ""}`;

  async function open() {
    if (videoSae.state.session.served) {
      const answer = await fetch("api/notes", { headers: { Accept: "application/json" } });
      if (answer.ok) all = { ...empty(), ...(await answer.json()) };
    } else {
      const shard = await videoSae.load("notes");
      if (shard) all = { ...empty(), ...shard.meta };
      for (const [kind, entries] of Object.entries(stored())) Object.assign(all[kind] ||= {}, entries);
    }
    changed();
  }

  function stored() {
    try { return JSON.parse(localStorage.getItem(storageKey()) || "{}"); } catch { return {}; }
  }

  function changed() { version += 1; listeners.forEach((listener) => listener()); }

  const get = (kind, key) => all[KINDS[kind]]?.[key]?.value ?? null;
  const entries = (kind) =>
    Object.entries(all[KINDS[kind]] || {}).filter(([, entry]) => entry.value !== null).map(([key, entry]) => [key, entry.value]);

  // Save one value. Resolves to {ok: true}, or to {ok: false, theirs} where somebody else saved another one first:
  // saving again then replaces it knowingly. Rejects where the run cannot be written.
  async function set(kind, key, value, { again = true } = {}) {
    const group = (all[KINDS[kind]] ||= {});
    const before = group[key];
    if (!videoSae.state.session.served) {
      group[key] = { value, version: (before?.version || 0) + 1 };
      const kept = stored();
      (kept[KINDS[kind]] ||= {})[key] = group[key];
      localStorage.setItem(storageKey(), JSON.stringify(kept));
      changed();
      return { ok: true };
    }
    const answer = await fetch("api/notes", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Video-Sae": videoSae.state.session.csrf },
      body: JSON.stringify({ kind, key, value, version: before?.version || 0 }),
    });
    const body = await answer.json().catch(() => ({}));
    if (answer.status === 409) {
      group[key] = { value: body.value, version: body.version };
      // Nothing is lost where the other change was a deletion.
      if (again && (body.value === null || JSON.stringify(body.value) === JSON.stringify(value))) return set(kind, key, value, { again: false });
      changed();
      return { ok: false, theirs: body.value };
    }
    if (!answer.ok) throw new Error(body.error || `The server answered ${answer.status}.`);
    group[key] = { value: body.value ?? value, version: body.version };
    changed();
    return { ok: true };
  }

  videoSae.notes = {
    open, get, set, entries,
    get version() { return version; },
    all: () => all,
    listen: (listener) => { listeners.add(listener); return () => listeners.delete(listener); },
    hasUnsaved: () => !videoSae.state.session.served && Object.keys(stored()).length > 0,
  };

  // Text of a person, saved after a pause; what another one saved in the meantime is shown, and nothing is lost.
  videoSae.noteField = ({ kind, key, label, placeholder, multiline }) => {
    const { h } = videoSae;
    const status = h("span", { class: "quiet saved", role: "status" });
    const field = h(multiline ? "textarea" : "input", {
      class: `note-${kind}`, "aria-label": label, placeholder, dir: "auto", rows: multiline ? 3 : null,
      maxlength: multiline ? 20000 : 200, autocomplete: "off", spellcheck: multiline ? "true" : "false",
    });
    field.value = get(kind, key) || "";
    let timer = null;
    const save = async () => {
      clearTimeout(timer);
      timer = null;
      const value = field.value.trim() || null;
      if (value === get(kind, key)) return;
      status.textContent = "Saving…";
      try {
        const result = await set(kind, key, value);
        status.textContent = result.ok
          ? (videoSae.state.session.served ? "Saved in the run" : "Saved in this browser")
          : `Somebody else saved “${result.theirs ?? ""}”. Yours is still here: change it or press Enter to save it instead.`;
        status.classList.toggle("warn", !result.ok);
      } catch (error) {
        status.textContent = `Not saved: ${error.message}`;
        status.classList.add("warn");
      }
    };
    field.addEventListener("input", () => { clearTimeout(timer); status.textContent = ""; timer = setTimeout(save, 700); });
    field.addEventListener("change", save);
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (!multiline || event.ctrlKey || event.metaKey)) { event.preventDefault(); save(); }
      if (event.key === "Escape") field.blur();
      event.stopPropagation();
    });
    return h("div", { class: "note-field" }, field, status);
  };
})();
