// WCAG 2.2, success criterion 1.4.3: 4.5 : 1, or 3 : 1 for large text, of every text that is seen on what is behind it.
() => {
  const rgb = css => { const m = css.match(/[\d.]+/g).map(Number); return [m[0], m[1], m[2], m[3] === undefined ? 1 : m[3]] };
  const light = c => { const s = c.slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * s[0] + 0.7152 * s[1] + 0.0722 * s[2] };
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3])).concat(1);
  const ground = node => { const layers = [];
    for (let n = node; n; n = n.parentElement) { const c = rgb(getComputedStyle(n).backgroundColor); layers.push(c); if (c[3] === 1) break }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]) };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility({checkOpacity: true, checkVisibilityCSS: true})) continue;
    if (node.closest("option, noscript, .visually-hidden, button:disabled")) continue;
    const style = getComputedStyle(node), back = ground(node), front = over(rgb(style.color), back);
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) bad.push([walker.currentNode.data.trim().slice(0, 40), node.className, ratio.toFixed(2)]);
  }
  return bad;
}
