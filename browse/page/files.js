// What is shown, as a file: CSV, or parquet (one row group, plain values, uncompressed) written here, so that an
// exported page can do it as well.
"use strict";

(() => {
  videoSae.download = (name, parts, type) => {
    const url = URL.createObjectURL(new Blob(parts, { type }));
    const link = videoSae.h("a", { href: url, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  };

  // columns: [{name, column}]; rows: indices. Numbers have all the digits of a float32.
  videoSae.csv = (columns, rows) => {
    const lines = [columns.map(({ name }) => quoted(name)).join(",")];
    for (const row of rows) lines.push(columns.map(({ column }) => quoted(videoSae.cell(column, row))).join(","));
    return lines.join("\r\n") + "\r\n";
  };

  function quoted(value) {
    if (value === null) return "";
    if (typeof value === "number") return String(Math.fround(value) === value && !Number.isInteger(value) ? Number(value.toPrecision(9)) : value);
    const text = String(value);
    // A spreadsheet would run a cell that begins like a formula.
    const safe = /^[=+\-@\t\r]/.test(text) ? "'" + text : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }

  // Thrift's compact protocol, as far as parquet's footer and page headers need it.
  class Thrift {
    constructor() { this.bytes = []; this.last = [0]; }
    varint(value) { let v = BigInt(value); while (v >= 128n) { this.bytes.push(Number(v & 127n) | 128); v >>= 7n; } this.bytes.push(Number(v)); }
    zigzag(value) { this.varint(value >= 0 ? 2 * value : -2 * value - 1); }
    field(id, type) {
      const delta = id - this.last.at(-1);
      this.last[this.last.length - 1] = id;
      if (delta > 0 && delta < 16) this.bytes.push((delta << 4) | type);
      else { this.bytes.push(type); this.zigzag(id); }
    }
    i32(id, value) { this.field(id, 5); this.zigzag(value); }
    i64(id, value) { this.field(id, 6); this.zigzag(value); }
    text(id, value) { this.field(id, 8); this.string(value); }
    string(value) { const data = new TextEncoder().encode(value); this.varint(data.length); this.bytes.push(...data); }
    list(id, type, n) { this.field(id, 9); if (n < 15) this.bytes.push((n << 4) | type); else { this.bytes.push(0xf0 | type); this.varint(n); } }
    struct(id) { this.field(id, 12); this.open(); }
    open() { this.last.push(0); }
    close() { this.bytes.push(0); this.last.pop(); }
  }

  const BOOLEAN = 0, INT32 = 1, FLOAT = 4, BYTE_ARRAY = 6;
  const kindOf = (column) =>
    column.type === "flag" ? BOOLEAN : column.type !== "number" ? BYTE_ARRAY : column.values instanceof Int32Array ? INT32 : FLOAT;

  // Bytes of one column: definition levels (1 where there is a value), then the values that are there.
  function pageOf(column, rows) {
    const kind = kindOf(column), values = Array.from(rows, (row) => videoSae.cell(column, row));
    const levels = bitPacked(values.map((value) => value !== null));
    const present = values.filter((value) => value !== null);
    let data;
    if (kind === BOOLEAN) data = packedBits(present);
    else if (kind === BYTE_ARRAY) data = texts(present.map(String));
    else data = new Uint8Array((kind === INT32 ? Int32Array : Float32Array).from(present).buffer);
    const page = new Uint8Array(4 + levels.length + data.length);
    new DataView(page.buffer).setUint32(0, levels.length, true);
    page.set(levels, 4);
    page.set(data, 4 + levels.length);
    return page;
  }

  function packedBits(flags) {
    const bytes = new Uint8Array(Math.ceil(flags.length / 8));
    flags.forEach((flag, i) => { if (flag) bytes[i >> 3] |= 1 << (i & 7); });
    return bytes;
  }

  function bitPacked(flags) {
    const head = new Thrift(), groups = Math.ceil(flags.length / 8);
    head.varint((groups << 1) | 1);
    return Uint8Array.from([...head.bytes, ...packedBits(flags)]);
  }

  function texts(values) {
    const utf8 = new TextEncoder(), encoded = values.map((value) => utf8.encode(value));
    const bytes = new Uint8Array(encoded.reduce((sum, data) => sum + 4 + data.length, 0)), view = new DataView(bytes.buffer);
    let at = 0;
    for (const data of encoded) { view.setUint32(at, data.length, true); bytes.set(data, at + 4); at += 4 + data.length; }
    return bytes;
  }

  // columns: [{name, column}]; rows: indices -> parts of a file.
  videoSae.parquet = (columns, rows) => {
    const MAGIC = new TextEncoder().encode("PAR1"), parts = [MAGIC], chunks = [];
    let offset = 4;
    for (const { name, column } of columns) {
      const page = pageOf(column, rows), header = new Thrift();
      header.open();
      header.i32(1, 0); // a data page
      header.i32(2, page.length);
      header.i32(3, page.length);
      header.struct(5);
      header.i32(1, rows.length);
      header.i32(2, 0); // plain
      header.i32(3, 3); // levels: RLE or bit-packed
      header.i32(4, 3);
      header.close();
      header.close();
      const size = header.bytes.length + page.length;
      chunks.push({ name, kind: kindOf(column), offset, size });
      parts.push(Uint8Array.from(header.bytes), page);
      offset += size;
    }
    const footer = footerOf(chunks, rows.length);
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, footer.length, true);
    return [...parts, footer, length, MAGIC];
  };

  function footerOf(chunks, n) {
    const t = new Thrift();
    t.open();
    t.i32(1, 1);
    t.list(2, 12, chunks.length + 1);
    t.open(); t.text(4, "schema"); t.i32(5, chunks.length); t.close();
    for (const { name, kind } of chunks) {
      t.open();
      t.i32(1, kind); t.i32(3, 1); t.text(4, name);
      if (kind === BYTE_ARRAY) t.i32(6, 0); // UTF-8
      t.close();
    }
    t.i64(3, n);
    t.list(4, 12, 1);
    t.open();
    t.list(1, 12, chunks.length);
    for (const { name, kind, offset, size } of chunks) {
      t.open();
      t.i64(2, offset);
      t.struct(3);
      t.i32(1, kind);
      t.list(2, 5, 2); t.zigzag(0); t.zigzag(3);
      t.list(3, 8, 1); t.string(name);
      t.i32(4, 0); t.i64(5, n); t.i64(6, size); t.i64(7, size); t.i64(9, offset);
      t.close();
      t.close();
    }
    t.i64(2, chunks.reduce((sum, chunk) => sum + chunk.size, 0));
    t.i64(3, n);
    t.close();
    t.text(6, "video-sae browse");
    t.close();
    return Uint8Array.from(t.bytes);
  }
})();
