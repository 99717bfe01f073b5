// The state of the page is its address: #/part/part?name=value. Going somewhere new adds to the history; moving
// within a page (a cursor, a time) replaces the address.
"use strict";

(() => {
  // Part of a path: letters of an address stay readable, everything else is escaped.
  const escape = (part) => encodeURIComponent(part).replace(/%2F/g, "~2F").replace(/%3A/g, ":");
  const unescape = (part) => {
    try { return decodeURIComponent(part.replace(/~2F/g, "%2F")); } catch { return part; }
  };

  videoSae.read = (hash = location.hash) => {
    const [path, query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
    return { parts: path.split("/").filter(Boolean).map(unescape), query: new URLSearchParams(query) };
  };

  videoSae.address = (parts, query) => {
    const text = query ? String(query instanceof URLSearchParams ? query : new URLSearchParams(query)) : "";
    return `#/${parts.map((part) => escape(String(part))).join("/")}${text ? "?" + text : ""}`;
  };

  videoSae.go = (parts, query) => { location.hash = videoSae.address(parts, query); };

  videoSae.replace = (parts, query) => {
    const address = videoSae.address(parts, query);
    if (address !== location.hash) history.replaceState(null, "", address);
  };

  // Change some of the query's values (null removes one) and keep the rest.
  videoSae.change = (changes, { push = false } = {}) => {
    const { parts, query } = videoSae.read();
    for (const [name, value] of Object.entries(changes)) {
      if (value === null || value === "" || value === undefined) query.delete(name);
      else if (Array.isArray(value)) { query.delete(name); value.forEach((one) => query.append(name, one)); }
      else query.set(name, value);
    }
    if (push) videoSae.go(parts, query);
    else videoSae.replace(parts, query);
  };

  videoSae.latentAddress = (sae, latent, query) => videoSae.address([sae, "latent", latent], query);
  videoSae.videoAddress = (id, query) => videoSae.address(["video", id], query);
})();
