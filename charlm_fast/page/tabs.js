// Tabs: the arrow keys move between them, as the ARIA Authoring Practices describe.

function useTabs(opened) {
  const tabs = [...document.querySelectorAll('[role="tab"]')];
  const open = (tab) => {
    for (const other of tabs) {
      const here = other === tab;
      other.setAttribute("aria-selected", String(here));
      other.tabIndex = here ? 0 : -1;
      byId(other.getAttribute("aria-controls")).hidden = !here;
    }
    opened(tab.getAttribute("aria-controls"));
  };
  tabs.forEach((tab, k) => {
    tab.onclick = () => open(tab);
    tab.addEventListener("keydown", (event) => {
      const to = {ArrowRight: k + 1, ArrowLeft: k - 1, Home: 0, End: -1}[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = tabs.at(to % tabs.length);
      next.focus();
      open(next);
    });
  });
  open(tabs[0]);
}
