// The controls without a name for a screen reader: from aria-label, a label, alt, title, or the text inside.
() => Array.from(document.querySelectorAll("a, button, input, select, textarea, canvas[tabindex='0'], video, [role=grid], [role=slider], [role=listbox], [role=dialog], [role=img], section, progress"))
  .filter(node => node.checkVisibility() && !node.closest("[aria-hidden=true]"))
  .filter(node => !(node.getAttribute("aria-label") || node.labels?.length || node.getAttribute("alt") || node.title || (node.matches("a, button") && node.innerText.trim())
    || node.querySelector("img[alt]:not([alt=''])")))
  .map(node => node.outerHTML.slice(0, 120))
