// The namespace of the page, elements made from data, and how numbers are written.
"use strict";

const videoSae = { views: {}, state: { run: null, session: { served: false } } };

(() => {
  const SVG = "http://www.w3.org/2000/svg";

  // An element. Strings among the children become text nodes, so nothing from a run is ever parsed as markup.
  function fill(node, props, children) {
    for (const [name, value] of Object.entries(props || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "class") node.setAttribute("class", value);
      else if (name === "text") node.textContent = value;
      else if (name === "style") for (const [key, v] of Object.entries(value)) node.style.setProperty(key, v);
      else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name === "value" || name === "checked" || name === "disabled" || name === "muted") node[name] = value;
      else node.setAttribute(name, value === true ? "" : value);
    }
    append(node, children);
    return node;
  }

  function append(node, children) {
    for (const child of children) {
      if (child === null || child === undefined || child === false) continue;
      if (Array.isArray(child)) append(node, child);
      else node.append(child instanceof Node ? child : String(child));
    }
  }

  videoSae.h = (tag, props, ...children) => fill(document.createElement(tag), props, children);
  videoSae.svg = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);

  // Text from a run: its direction is its own and does not reach its neighbours.
  videoSae.said = (text, props) =>
    text === null || text === undefined ? null : videoSae.h("bdi", { ...props, text: String(text) });

  // A button's picture, drawn in its text colour; the name is for screen readers and the tooltip.
  const PATHS = {
    play: "M4 2.5v11l9.5-5.5z", pause: "M4 3h3v10H4zM9 3h3v10H9z", back: "M11 3v10L5 8zM4 3h1.4v10H4z",
    forward: "M5 3v10l6-5zM10.6 3H12v10h-1.4z", full: "M2 2h5v1.5H3.5V7H2zM9 2h5v5h-1.5V3.5H9zM2 9h1.5v3.5H7V14H2zM12.5 9H14v5H9v-1.5h3.5z",
    close: "M3.6 2.5 8 6.9l4.4-4.4 1.1 1.1L9.1 8l4.4 4.4-1.1 1.1L8 9.1l-4.4 4.4-1.1-1.1L6.9 8 2.5 3.6z",
    sun: "M8 5a3 3 0 100 6 3 3 0 000-6zM7.3 1h1.4v2.2H7.3zM7.3 12.8h1.4V15H7.3zM1 7.3h2.2v1.4H1zM12.8 7.3H15v1.4h-2.2zM2.6 3.5l1-1 1.5 1.6-1 1zM10.9 11.9l1-1 1.5 1.6-1 1zM2.5 12.4l1.6-1.5 1 1-1.6 1.5zM10.9 4.1l1.5-1.6 1 1-1.5 1.6z",
    left: "M10.5 2.5 5 8l5.5 5.5 1-1L7 8l4.5-4.5z", right: "M5.5 2.5 11 8l-5.5 5.5-1-1L9 8 4.5 3.5z",
    loop: "M4 4h7V2l3 3-3 3V6H5.5v3H4zM12 12H5v2l-3-3 3-3v2h5.5V7H12z", up: "M8 4l5 7H3z", down: "M8 12L3 5h10z",
  };
  videoSae.icon = (name) =>
    videoSae.svg("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, videoSae.svg("path", { d: PATHS[name] }));
  videoSae.iconButton = (name, label, onclick, props) =>
    videoSae.h("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...props }, videoSae.icon(name));

  const MINUS = "−";
  const absent = (value) => value === null || value === undefined || Number.isNaN(value);
  const grouped = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

  // A number with about three digits: 0.034, −1.25, 12,345, 2.1e−7.
  function number(value, digits = 3) {
    if (absent(value)) return "–";
    if (!Number.isFinite(value)) return value > 0 ? "∞" : MINUS + "∞";
    const size = Math.abs(value);
    let text;
    if (Number.isInteger(value) && size < 1e15) text = grouped.format(size);
    else if (size >= 1000) text = grouped.format(size);
    else if (size >= 100) text = size.toFixed(Math.max(0, digits - 3));
    else if (size >= 10) text = size.toFixed(digits - 2);
    else if (size >= 0.001) text = size.toFixed(size < 0.01 ? digits + 1 : digits - (size >= 1 ? 1 : 0));
    else if (size === 0) text = "0";
    else {
      const power = Math.floor(Math.log10(size));
      text = `${(size / 10 ** power).toFixed(1)}e${MINUS}${-power}`;
    }
    return value < 0 ? MINUS + text : text;
  }

  const signed = (value, digits) => (absent(value) ? "–" : (value > 0 ? "+" : "") + number(value, digits));
  const percent = (value, digits = 0) => (absent(value) ? "–" : `${(value * 100).toFixed(digits).replace("-", MINUS)} %`);
  const seconds = (value) => (absent(value) ? "–" : `${value.toFixed(2)} s`);
  const interval = (low, high) => (absent(low) || absent(high) ? "" : `${number(low)} … ${number(high)}`);
  const count = (n, one, many) => `${grouped.format(n)} ${n === 1 ? one : many || one + "s"}`;
  videoSae.format = { number, signed, percent, seconds, interval, count, absent };

  // The 95 % interval of a share by Wilson's formula; 0 … 1 where nothing was counted.
  videoSae.wilson = (hits, n) => {
    if (n === 0) return [0, 1];
    const z = 1.959963984540054, p = hits / n, zz = (z * z) / n;
    const middle = (p + zz / 2) / (1 + zz);
    const half = (z / (1 + zz)) * Math.sqrt((p * (1 - p)) / n + zz / (4 * n));
    return [hits === 0 ? 0 : Math.max(0, middle - half), hits === n ? 1 : Math.min(1, middle + half)];
  };

  // A muted colour for each text, the same on every page.
  const HUES = 8;
  videoSae.hue = (text) => {
    let sum = 7;
    for (const letter of String(text)) sum = (sum * 31 + letter.codePointAt(0)) >>> 0;
    return sum % HUES;
  };
  videoSae.token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // What stands where data is missing: what is missing, and the command that makes it.
  videoSae.empty = (title, detail, command) =>
    videoSae.h("div", { class: "empty", role: "status" }, videoSae.h("strong", {}, title),
      detail ? videoSae.h("p", {}, detail) : null, command ? videoSae.h("code", {}, command) : null);

  // Replace what a node holds; nothing is written where a child is missing.
  videoSae.put = (node, ...children) => { node.replaceChildren(); append(node, children); return node; };
  videoSae.announce = (text) => { const live = document.getElementById("live"); if (live) live.textContent = text; };
})();
