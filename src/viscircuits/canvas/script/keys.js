// Keys: one place in the tab order, arrows from there to its neighbours; + - 0 and Shift with arrows move the window.

const PAN = 60;

const middle = (el) => {
  const box = el.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
};

// Where the arrows lead from a vertex or link: along the strongest line, or to the next one above or below.
const neighbours = ({ vertices, links, linkOf }, open) => {
  const beside = (el, down) => {
    const link = linkOf.get(el), [x, y] = middle(el);
    const peers = link
      ? links.filter((l) => (l.source === link.source || l.target === link.target) && l !== link).map((l) => l.el)
      : [...vertices.values()].map((v) => v.el).filter((other) => other !== el && Math.abs(middle(other)[0] - x) < 4);
    const gaps = peers.filter(open).map((other) => [down ? middle(other)[1] - y : y - middle(other)[1], other]);
    return gaps.filter(([gap]) => gap > 0).sort((a, b) => a[0] - b[0])[0]?.[1];
  };
  const along = (el, right) => {
    const link = linkOf.get(el);
    if (link) return vertices.get(right ? link.target : link.source).el;
    return vertices.get(el.dataset.id)[right ? "out" : "into"].find((l) => open(l.el))?.el;
  };
  return {
    ArrowLeft: (el) => along(el, false),
    ArrowRight: (el) => along(el, true),
    ArrowUp: (el) => beside(el, false),
    ArrowDown: (el) => beside(el, true),
  };
};

export const keyed = (root, graph, { selection, hover, zoom, escape, signal }) => {
  const { told, goal } = graph, main = root.querySelector(".picture");
  const steps = neighbours(graph, selection.open);
  let cursor = goal;
  goal.setAttribute("tabindex", "0");

  const place = (el, visible = true) => {
    cursor.classList.remove("cursor");
    cursor.setAttribute("tabindex", "-1");
    cursor = el;
    el.setAttribute("tabindex", "0");
    el.classList.toggle("cursor", visible);
    el.focus({ preventScroll: !visible });
    if (visible) zoom.reveal(el);
  };
  const walk = (e) => {
    if (!told.has(e.target) || e.shiftKey) return false;
    const next = steps[e.key]?.(cursor);
    if (next) {
      place(next);
      hover.tell(next);
    }
    if (e.key === "Enter" || e.key === " ") selection.select(cursor);
    return e.key in steps || e.key === "Enter" || e.key === " ";
  };
  const moves = {
    ArrowLeft: () => zoom.pan(-PAN, 0),
    ArrowRight: () => zoom.pan(PAN, 0),
    ArrowUp: () => zoom.pan(0, -PAN),
    ArrowDown: () => zoom.pan(0, PAN),
  };
  const views = { "+": zoom.closer, "=": zoom.closer, "-": zoom.farther, 0: zoom.fit };
  const look = (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.target.closest?.("input, .panel")) return false;
    const act = views[e.key] ?? moves[e.key];
    act?.();
    return Boolean(act);
  };
  // Keys belong to the diagram with the focus; where nothing has it, to the one under the pointer, or the only one.
  const ours = (e) => {
    if (e.target !== document.body) return root.contains(e.target);
    return root.matches(":hover") || document.querySelectorAll(".diagram").length === 1;
  };
  const pressed = (e) => {
    if (!ours(e)) return;
    if (e.key === "Escape") return escape();
    if (walk(e) || look(e)) e.preventDefault();
  };
  document.addEventListener("keydown", pressed, { signal });

  // Focus is watched on the parent: with a listener of its own, the svg would be one more stop of the Tab key.
  main.addEventListener("focusin", (e) => {
    if (!told.has(e.target) || !e.target.matches(":focus-visible")) return;
    e.target.classList.add("cursor");
    zoom.reveal(e.target);
    hover.tell(e.target);
  }, { signal });
  main.addEventListener("focusout", (e) => {
    e.target.classList.remove("cursor");
    hover.hide();
  }, { signal });
  return { place };
};
