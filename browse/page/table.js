// A table of which only the rows in sight exist: 100,000 rows scroll as fast as 30.
"use strict";

(() => {
  const { h, format } = videoSae;
  const ROW_PX = 32;
  const MARGIN_ROWS = 6;
  const MOST_PX = 8_000_000; // browsers lose precision in taller elements

  // options: {label, onsort(name), onopen(row), onmove(row), latentOf(row), cellOf(row, column) -> node or null for the usual one}
  videoSae.table = (options) => {
    const head = h("div", { class: "grid-head", role: "row" });
    const body = h("div", { class: "grid-body", role: "presentation" });
    const root = h("div", { class: "grid", role: "grid", tabindex: "0", "aria-label": options.label, "aria-readonly": "true" }, head, body);
    let columns = [], rows = new Uint32Array(0), sort = null, cursor = -1, first = -1, last = -1;

    function setColumns(list, order) {
      columns = list;
      sort = order;
      root.style.setProperty("--columns", columns.map((column) => column.width).join(" "));
      root.style.setProperty("--least", `${columns.reduce((sum, column) => sum + column.least, 0)}px`);
      head.replaceChildren(...columns.map(header));
      root.setAttribute("aria-colcount", columns.length);
      first = -1;
    }

    function header(column) {
      const sorted = sort && sort.name === column.name;
      const cell = h("div", { role: "columnheader", class: `cell ${column.kind}`, "aria-sort": sorted ? (sort.descending ? "descending" : "ascending") : "none" });
      if (!column.sortable) { cell.append(h("span", { class: "unsorted" }, column.title)); return cell; }
      cell.append(h("button", {
        type: "button", title: column.description || column.title, "data-column": column.name,
        onclick: () => options.onsort(column.name),
      }, h("span", { class: "head-text" }, column.title), sorted ? videoSae.icon(sort.descending ? "down" : "up") : null));
      return cell;
    }

    function show(newRows) {
      rows = newRows;
      root.setAttribute("aria-rowcount", rows.length + 1);
      body.style.height = `${Math.min(rows.length * ROW_PX, MOST_PX)}px`;
      first = -1;
      draw();
    }

    const headHeight = () => head.offsetHeight || ROW_PX;

    // Rows are where the scroll bar says; in tables taller than MOST_PX the bar's way is stretched over all rows.
    function firstInSight() {
      const real = rows.length * ROW_PX;
      if (real <= MOST_PX) return { row: Math.floor(root.scrollTop / ROW_PX), offset: 0 };
      const share = root.scrollTop / Math.max(1, MOST_PX - root.clientHeight);
      const row = Math.floor((share * (real - root.clientHeight)) / ROW_PX);
      return { row, offset: root.scrollTop - row * ROW_PX };
    }

    function draw() {
      const { row, offset } = firstInSight();
      const from = Math.max(0, row - MARGIN_ROWS);
      const to = Math.min(rows.length, row + Math.ceil((root.clientHeight || 900) / ROW_PX) + MARGIN_ROWS);
      if (from === first && to === last && !offset) return;
      first = from;
      last = to;
      const made = [];
      for (let i = from; i < to; i++) made.push(line(i, i * ROW_PX + offset));
      body.replaceChildren(...made);
      active();
    }

    function line(i, top) {
      const row = rows[i];
      const node = h("div", {
        class: i === cursor ? "grid-row current" : "grid-row", role: "row", id: `row-${i}`, "aria-rowindex": i + 2,
        "aria-selected": i === cursor ? "true" : "false", "data-latent": options.latentOf(row), style: { transform: `translateY(${top}px)` },
        onclick: (event) => { if (!event.defaultPrevented && !event.target.closest("a")) { move(i); options.onopen(row); } },
      });
      for (const column of columns) {
        const cell = h("div", { role: "gridcell", class: `cell ${column.kind}` });
        const special = options.cellOf(row, column);
        if (special !== null) cell.append(special);
        else cell.append(plain(videoSae.cell(column.column, row), column));
        node.append(cell);
      }
      return node;
    }

    function plain(value, column) {
      if (value === null) return h("span", { class: "none" }, "–");
      if (column.kind === "number") return column.signed ? format.signed(value) : format.number(value);
      if (column.kind === "flag") return value ? h("span", { class: "yes" }, "yes") : h("span", { class: "none" }, "no");
      return videoSae.said(value, { title: value });
    }

    function move(i, { quiet = false } = {}) {
      if (rows.length === 0) return;
      cursor = Math.max(0, Math.min(rows.length - 1, i));
      reveal();
      first = -1;
      draw();
      if (!quiet) options.onmove(rows[cursor]);
    }

    function reveal() {
      const room = root.clientHeight - headHeight();
      if (rows.length * ROW_PX > MOST_PX) {
        const { row } = firstInSight();
        if (cursor <= row || cursor >= row + Math.floor(room / ROW_PX)) root.scrollTop = (cursor / rows.length) * (MOST_PX - root.clientHeight);
        return;
      }
      const top = cursor * ROW_PX;
      if (top < root.scrollTop) root.scrollTop = top;
      else if (top + ROW_PX > root.scrollTop + room) root.scrollTop = top + ROW_PX - room;
    }

    function active() {
      const shown = cursor >= first && cursor < last;
      if (shown) root.setAttribute("aria-activedescendant", `row-${cursor}`);
      else root.removeAttribute("aria-activedescendant");
    }

    root.addEventListener("scroll", draw, { passive: true });
    const observer = new ResizeObserver(() => { first = -1; draw(); });
    observer.observe(root);

    return {
      root, setColumns, show, move, redraw: () => { first = -1; draw(); }, destroy: () => observer.disconnect(),
      page: () => Math.max(1, Math.floor((root.clientHeight - headHeight()) / ROW_PX) - 1),
      top: () => { root.scrollTop = 0; },
      get cursor() { return cursor; },
      get row() { return cursor >= 0 && cursor < rows.length ? rows[cursor] : -1; },
      place: (row) => { cursor = row < 0 ? -1 : rows.indexOf(row); first = -1; if (cursor >= 0) reveal(); draw(); },
      get length() { return rows.length; },
    };
  };
})();
