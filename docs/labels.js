// What the theme adds without a name gets one, and wide tables can be scrolled from the keyboard.
const named = () => {
  document.querySelectorAll("nav.md-code__nav:not([aria-label])").forEach((nav) => {
    const code = nav.closest("pre, .highlight");
    const place = [...document.querySelectorAll("pre, .highlight")].indexOf(code);
    nav.setAttribute("aria-label", `Code block ${place + 1}`);
  });
  document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])").forEach((table) => {
    table.tabIndex = 0;
  });
};
new MutationObserver(named).observe(document.body, { childList: true, subtree: true });
named();
