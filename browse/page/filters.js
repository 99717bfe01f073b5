// Conditions on the table of latents, in words: chips above it, and a small form that adds one.
"use strict";

(() => {
  const { h } = videoSae;
  const WORDS = { ge: "≥", le: "≤", is: "is", not: "is not", has: "contains", none: "is missing", some: "is there" };
  const OPS = { number: ["ge", "le", "is", "some", "none"], flag: ["is"], dict: ["is", "not", "has", "some", "none"], text: ["has", "is", "some", "none"] };

  // Conditions as in the address: f=column:op:value, as often as there are conditions.
  videoSae.readFilters = (query) =>
    query.getAll("f").map((text) => {
      const [column, op, ...rest] = text.split(":");
      return { column, op, value: rest.join(":") };
    }).filter(({ op }) => op in WORDS);
  videoSae.writeFilters = (filters) => filters.map(({ column, op, value }) => `${column}:${op}:${value}`);

  // Conditions that are asked for often; each is offered where the table has its columns.
  videoSae.presets = (table) => [
    { title: "Alive", filters: [{ column: "is_dead", op: "is", value: "0" }] },
    { title: "Dead", filters: [{ column: "is_dead", op: "is", value: "1" }] },
    { title: "Named", filters: [table.has("labelled") ? { column: "labelled", op: "is", value: "1" } : { column: "top_label", op: "some", value: "" }] },
    { title: "Unlabelled", filters: [table.has("labelled") ? { column: "labelled", op: "is", value: "0" } : { column: "top_label", op: "none", value: "" }] },
    { title: "Not explained by place or time", filters: [{ column: "explained_by_place_time", op: "le", value: "0.5" }] },
    { title: "Explained by place or time", filters: [{ column: "explained_by_place_time", op: "ge", value: "0.5" }] },
    { title: "Effect, exact", filters: [{ column: "effect_method", op: "is", value: "exact" }] },
    { title: "Effect, not exact", filters: [{ column: "effect_method", op: "not", value: "exact" }] },
    { title: "Effect with q ≤ 0.05", filters: [{ column: "effect_q", op: "le", value: "0.05" }] },
    { title: "Claimed", filters: [{ column: "claim", op: "some", value: "" }] },
    { title: "Fires on more than 10 % of tokens", filters: [{ column: "firing_rate", op: "ge", value: "0.1" }] },
  ].filter(({ filters }) => filters.every(({ column }) => table.has(column)));

  // options: {columns: [{name, title, column}], filters(), onchange(filters), presets}
  videoSae.filterBar = (options) => {
    const chips = h("div", { class: "chips", role: "list", "aria-label": "Filters" });
    const title = (name) => options.columns.find((column) => column.name === name)?.title || name;

    function update() {
      const filters = options.filters();
      videoSae.put(chips, 
        ...filters.map((filter, i) => {
          const value = shownValue(filter);
          const text = `${title(filter.column)} ${WORDS[filter.op]}${value ? " " + value : ""}`;
          return h("span", { class: "chip", role: "listitem" }, videoSae.said(text),
            videoSae.iconButton("close", `Remove the filter ${text}`, () => options.onchange(filters.filter((_, j) => j !== i))));
        }),
        filters.length > 1 ? h("button", { type: "button", class: "text-button", onclick: () => options.onchange([]) }, "Clear") : "",
      );
    }

    function shownValue({ column, op, value }) {
      const entry = options.columns.find((one) => one.name === column);
      if (op === "none" || op === "some") return "";
      if (entry?.column.type === "flag") return value === "1" ? "yes" : "no";
      return entry?.column.type === "number" ? videoSae.format.number(Number(value)) : value;
    }

    const add = videoSae.popover("Filter", (close) => form(close), { class: "filter-form" });
    const root = h("div", { class: "filter-bar" }, add, chips);
    return { root, update };

    function form(close) {
      const column = h("select", { "aria-label": "Column to filter by" });
      for (const entry of options.columns) column.append(h("option", { value: entry.name }, entry.title));
      const op = h("select", { "aria-label": "Condition" });
      const slot = h("span", { class: "value-slot" });
      let field = null;
      const ofColumn = () => options.columns.find((entry) => entry.name === column.value);
      const refreshOps = () => {
        op.replaceChildren(...OPS[ofColumn().column.type].map((name) => h("option", { value: name }, WORDS[name])));
        refreshValue();
      };
      const refreshValue = () => {
        const entry = ofColumn().column;
        field = null;
        if (op.value !== "none" && op.value !== "some") {
          if (entry.type === "flag") field = h("select", { "aria-label": "Value" }, h("option", { value: "1" }, "yes"), h("option", { value: "0" }, "no"));
          else if (entry.type === "dict" && op.value !== "has") {
            field = h("select", { "aria-label": "Value" });
            for (const word of [...entry.words].sort()) field.append(h("option", { value: word }, word));
          } else field = h("input", { "aria-label": "Value", type: entry.type === "number" ? "number" : "text", step: "any", required: true });
        }
        slot.replaceChildren(field || "");
      };
      column.addEventListener("change", refreshOps);
      op.addEventListener("change", refreshValue);
      refreshOps();
      const submit = (event) => {
        event.preventDefault();
        options.onchange([...options.filters(), { column: column.value, op: op.value, value: field ? field.value : "" }]);
        close();
      };
      return [
        h("form", { onsubmit: submit, class: "row" }, column, op, slot, h("button", { type: "submit", class: "primary" }, "Add")),
        h("div", { class: "presets" }, options.presets.map((preset) =>
          h("button", { type: "button", class: "chip-button", onclick: () => {
            const names = new Set(preset.filters.map(({ column: name }) => name));
            options.onchange([...options.filters().filter((filter) => !names.has(filter.column)), ...preset.filters]);
            close();
          } }, preset.title))),
      ];
    }
  };

  // A button that opens a small panel below it; Escape or a click elsewhere closes it.
  videoSae.popover = (label, content, props = {}) => {
    const panel = h("div", { class: `popover ${props.class || ""}`, hidden: true, role: "dialog", "aria-label": label });
    const button = h("button", { type: "button", "aria-expanded": "false", "aria-haspopup": "dialog" }, label);
    const close = () => { panel.hidden = true; button.setAttribute("aria-expanded", "false"); document.removeEventListener("pointerdown", outside); };
    const outside = (event) => { if (!root.contains(event.target)) close(); };
    button.addEventListener("click", () => {
      if (!panel.hidden) { close(); return; }
      panel.replaceChildren(...[content(close)].flat());
      panel.hidden = false;
      panel.classList.toggle("from-right", button.getBoundingClientRect().left > window.innerWidth / 2);
      button.setAttribute("aria-expanded", "true");
      document.addEventListener("pointerdown", outside);
      panel.querySelector("select, input, button")?.focus();
    });
    const root = h("div", { class: "popover-root", onkeydown: (event) => { if (event.key === "Escape" && !panel.hidden) { close(); button.focus(); event.stopPropagation(); } } }, button, panel);
    return root;
  };
})();
