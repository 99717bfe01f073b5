// Shards: gzip of a header and columns, in base64, in a script that hands it over. The same files are served and
// exported: on file:// a page may neither fetch nor start a worker, but it may load a script.
"use strict";

(() => {
  const waiting = new Map(); // name -> {promise, resolve}
  const MOST_KEPT = 400;
  const MISSING_I4 = -2147483648;

  videoSae.shardFile = (name) => `shards/${name}.js`;

  // An id as part of a file's name: every byte outside [A-Za-z0-9._-] becomes ~XX.
  videoSae.fileId = (id) =>
    Array.from(new TextEncoder().encode(String(id)), (byte) =>
      /[A-Za-z0-9._-]/.test(String.fromCharCode(byte)) && byte < 128
        ? String.fromCharCode(byte)
        : "~" + byte.toString(16).toUpperCase().padStart(2, "0")).join("");

  // Called by each shard's script.
  videoSae.shard = (name, base64) => {
    const entry = waiting.get(name);
    if (entry) entry.resolve(unpack(base64).then(parse));
  };

  // A shard by name: a promise of {n_rows, meta, columns, has(name), get(name)}, or of null where the file is missing.
  videoSae.load = (name) => {
    const known = waiting.get(name);
    if (known) return known.promise;
    const entry = {};
    entry.promise = new Promise((resolve) => { entry.resolve = resolve; });
    waiting.set(name, entry);
    if (waiting.size > MOST_KEPT) forgetOldest();
    const script = document.createElement("script");
    script.src = videoSae.shardFile(name);
    script.onload = () => script.remove();
    script.onerror = () => { waiting.delete(name); script.remove(); entry.resolve(null); };
    document.head.append(script);
    return entry.promise;
  };

  // The shard of a table that has rows, or null; why there are none is its `meta.error`.
  videoSae.loadTable = async (name) => {
    const shard = await videoSae.load(name);
    return shard && (shard.n_rows || !shard.meta.error) && shard.names.length ? shard : null;
  };
  videoSae.errorOf = async (name) => (await videoSae.load(name))?.meta.error || null;

  // Load a shard anew, for a run that is still being written.
  videoSae.reload = (name) => { waiting.delete(name); return videoSae.load(name); };

  function forgetOldest() {
    for (const name of waiting.keys()) {
      if (/\/(latent|video)\/|^video\//.test(name)) { waiting.delete(name); return; }
    }
  }

  async function unpack(base64) {
    const stream = new Blob([bytesOf(base64)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }

  function bytesOf(base64) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
    const text = atob(base64), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
  }

  function parse(buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    const utf8 = new TextDecoder();
    const header = JSON.parse(utf8.decode(new Uint8Array(buffer, 4, length)));
    const start = 4 + length;
    const columns = new Map();
    for (const entry of header.columns) columns.set(entry.name, { entry, made: null });
    return {
      n_rows: header.n_rows,
      meta: header.meta,
      names: header.columns.map((entry) => entry.name),
      has: (name) => columns.has(name),
      get: (name) => {
        const column = columns.get(name);
        if (!column) return null;
        column.made ||= decode(column.entry, buffer, start, header.n_rows, utf8);
        return column.made;
      },
    };
  }

  // {type: "number", values: Float32Array | Int32Array} | {type: "flag"} | {type: "dict", values, index} |
  // {type: "text", values} | {type: "json", values}. Missing numbers are NaN.
  function decode(entry, buffer, start, n, utf8) {
    const at = start + entry.offset;
    switch (entry.type) {
      case "f4": return { type: "number", values: new Float32Array(buffer, at, n) };
      case "i4": {
        const values = new Int32Array(buffer, at, n);
        return { type: "number", values: values.includes(MISSING_I4) ? withNaN(values) : values };
      }
      case "u1": return { type: "flag", values: new Uint8Array(buffer, at, n) };
      case "q2": return { type: "number", values: dequantised(new Uint16Array(buffer, at, n), entry) };
      case "dict": return { type: "dict", words: entry.values, index: new Int32Array(buffer, at, n) };
      case "str": return { type: "text", values: JSON.parse(utf8.decode(new Uint8Array(buffer, at, entry.n))) };
      case "json": return { type: "json", values: JSON.parse(utf8.decode(new Uint8Array(buffer, at, entry.n))) };
      default: throw new Error(`This page does not know columns of type ${entry.type}: it is older than the shards.`);
    }
  }

  function withNaN(values) {
    const made = new Float32Array(values.length);
    for (let i = 0; i < made.length; i++) made[i] = values[i] === MISSING_I4 ? NaN : values[i];
    return made;
  }

  function dequantised(values, entry) {
    const made = new Float32Array(values.length), step = (entry.high - entry.low) / 65534;
    for (let i = 0; i < made.length; i++) made[i] = values[i] === 65535 ? NaN : entry.low + step * values[i];
    return made;
  }
})();
