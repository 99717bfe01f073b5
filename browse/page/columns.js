// Sorting, filtering and searching columns of typed arrays: 65,536 rows take a few milliseconds.
"use strict";

(() => {
  const BUCKETS = 65536;

  // Rows in ascending or descending order of a column, equal ones by their number, missing values last: Uint32Array.
  videoSae.sorted = (column, n, descending) => {
    if (!column) return Uint32Array.from({ length: n }, (_, i) => (descending ? n - 1 - i : i));
    if (column.type === "text") return sortedTexts(column.values, descending);
    return radix(keysOf(column, n), descending);
  };

  // Sortable keys: {keys: Uint32Array, missing: Uint8Array or null}.
  function keysOf(column, n) {
    const keys = new Uint32Array(n);
    let missing = null;
    const mark = (i) => { missing ||= new Uint8Array(n); missing[i] = 1; };
    if (column.type === "flag") for (let i = 0; i < n; i++) keys[i] = column.values[i];
    else if (column.type === "dict") {
      const rank = ranks(column.words);
      for (let i = 0; i < n; i++) if (column.index[i] < 0) mark(i); else keys[i] = rank[column.index[i]];
    } else if (column.values instanceof Int32Array) {
      for (let i = 0; i < n; i++) keys[i] = column.values[i] ^ 0x80000000;
    } else {
      const floats = column.values, bits = new Int32Array(floats.buffer, floats.byteOffset, n);
      for (let i = 0; i < n; i++) {
        if (floats[i] !== floats[i]) mark(i);
        // The order of floats as unsigned integers: flip the sign bit, and all bits of negative ones. −0 equals 0.
        else { const b = bits[i] === -2147483648 ? 0 : bits[i]; keys[i] = b ^ ((b >> 31) | 0x80000000); }
      }
    }
    return { keys, missing };
  }

  function ranks(words) {
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    const order = words.map((_, i) => i).sort((a, b) => compare(words[a], words[b]));
    const rank = new Uint32Array(words.length);
    order.forEach((word, i) => { rank[word] = i; });
    return rank;
  }

  // Two passes of 16 bits, least significant first, each of them stable.
  function radix({ keys, missing }, descending) {
    const n = keys.length;
    if (descending) for (let i = 0; i < n; i++) keys[i] = ~keys[i];
    let n_present = 0;
    let from = new Uint32Array(n), to = new Uint32Array(n);
    for (let i = 0; i < n; i++) if (!missing || !missing[i]) from[n_present++] = i;
    for (const shift of [0, 16]) {
      const starts = new Uint32Array(BUCKETS + 1);
      for (let i = 0; i < n_present; i++) starts[((keys[from[i]] >>> shift) & 0xffff) + 1]++;
      for (let b = 0; b < BUCKETS; b++) starts[b + 1] += starts[b];
      for (let i = 0; i < n_present; i++) to[starts[(keys[from[i]] >>> shift) & 0xffff]++] = from[i];
      [from, to] = [to, from];
    }
    if (missing) for (let i = 0, at = n_present; i < n; i++) if (missing[i]) from[at++] = i;
    return from;
  }

  function sortedTexts(values, descending) {
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    const order = Array.from(values, (_, i) => i);
    const sign = descending ? -1 : 1;
    order.sort((a, b) => {
      if (values[a] === null || values[b] === null) return (values[a] === null) - (values[b] === null) || a - b;
      return sign * compare(values[a], values[b]) || a - b;
    });
    return Uint32Array.from(order);
  }

  // One condition on a column: {column, op, value}; `op` is ge, le, is, not, has, none or some.
  videoSae.narrow = (mask, column, op, value) => {
    const n = mask.length;
    if (!column) { mask.fill(0); return; }
    if (column.type === "dict") {
      const wanted = new Uint8Array(column.words.length + 1); // the last one stands for null
      column.words.forEach((word, i) => { wanted[i] = holds(word, op, value) ? 1 : 0; });
      wanted[column.words.length] = op === "none" || op === "not" ? 1 : 0;
      const nothing = column.words.length;
      for (let i = 0; i < n; i++) mask[i] &= wanted[column.index[i] < 0 ? nothing : column.index[i]];
    } else if (column.type === "text") {
      for (let i = 0; i < n; i++) {
        if (mask[i]) mask[i] = column.values[i] === null ? Number(op === "none" || op === "not") : Number(holds(column.values[i], op, value));
      }
    } else {
      const values = column.values, bound = Number(value);
      if (op === "ge") for (let i = 0; i < n; i++) mask[i] &= values[i] >= bound ? 1 : 0;
      else if (op === "le") for (let i = 0; i < n; i++) mask[i] &= values[i] <= bound ? 1 : 0;
      else if (op === "is") for (let i = 0; i < n; i++) mask[i] &= values[i] === bound ? 1 : 0;
      else if (op === "not") for (let i = 0; i < n; i++) mask[i] &= values[i] !== bound ? 1 : 0;
      else if (op === "none") for (let i = 0; i < n; i++) mask[i] &= values[i] !== values[i] ? 1 : 0;
      else if (op === "some") for (let i = 0; i < n; i++) mask[i] &= values[i] === values[i] ? 1 : 0;
      else mask.fill(0);
    }
  };

  function holds(word, op, value) {
    if (op === "is") return word === value;
    if (op === "not") return word !== value;
    if (op === "has") return word.toLowerCase().includes(value.toLowerCase());
    return op === "some";
  }

  // Rows in which every word of a search occurs in some text, in a person's name or note, or is the latent's number.
  videoSae.search = (mask, table, words, noted) => {
    const n = mask.length;
    const dicts = table.names.map((name) => table.get(name)).filter((column) => column.type === "dict");
    const texts = table.names.filter((name) => name !== "thumb").map((name) => table.get(name)).filter((column) => column.type === "text");
    const latents = table.get("latent").values;
    for (const word of words) {
      const found = new Uint8Array(n);
      for (const column of dicts) {
        const hit = column.words.map((text) => text.toLowerCase().includes(word));
        if (hit.includes(true)) for (let i = 0; i < n; i++) if (column.index[i] >= 0 && hit[column.index[i]]) found[i] = 1;
      }
      for (const column of texts) {
        column.lower ||= column.values.map((text) => (text === null ? "" : text.toLowerCase()));
        for (let i = 0; i < n; i++) if (!found[i] && column.lower[i].includes(word)) found[i] = 1;
      }
      for (let i = 0; i < n; i++) {
        const text = noted.get(latents[i]);
        if ((text !== undefined && text.includes(word)) || String(latents[i]) === word) found[i] = 1;
      }
      for (let i = 0; i < n; i++) mask[i] &= found[i];
    }
  };

  // The rows of an order that a mask keeps.
  videoSae.kept = (order, mask) => {
    const rows = new Uint32Array(order.length);
    let n = 0;
    for (let i = 0; i < order.length; i++) if (mask[order[i]]) rows[n++] = order[i];
    return rows.subarray(0, n);
  };

  // The value of a cell as it is, or null.
  videoSae.cell = (column, row) => {
    if (!column) return null;
    if (column.type === "dict") return column.index[row] < 0 ? null : column.words[column.index[row]];
    const value = column.values[row];
    if (column.type === "flag") return value === 1;
    return typeof value === "number" && Number.isNaN(value) ? null : value;
  };
})();
