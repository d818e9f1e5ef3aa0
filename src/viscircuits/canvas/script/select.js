// Hover tells what is under the pointer; a click shows only the paths through it.

const ANSWERS = ".vertex, .edge, .wire, .kernel, .inset";

// Thin lines are hard to hit, so that each gets a wide transparent one above it.
const widen = (links) => {
  for (const { el } of links) {
    const path = el.querySelector("path"), hit = path.cloneNode();
    hit.setAttribute("class", "hit");
    hit.setAttribute("stroke-width", Math.max(11, Number(path.getAttribute("stroke-width") || 1) + 5));
    el.append(hit);
  }
};

// All boxes are measured before any ring is put in: a change between two measurements costs a layout each.
const ring = (vertices) => {
  const boxes = [...vertices.values()].map(({ el }) => [el, el.getBBox()]);
  for (const [el, box] of boxes) {
    const rim = el.ownerDocument.createElementNS(el.namespaceURI, "rect");
    const place = { x: box.x - 3, y: box.y - 3, width: box.width + 6, height: box.height + 6, rx: 6, class: "ring" };
    for (const [name, value] of Object.entries(place)) rim.setAttribute(name, value);
    el.append(rim);
  }
};

const name = (told) => {
  for (const [el, text] of told) {
    if (el.classList.contains("inset")) continue;
    el.setAttribute("role", "button");
    el.setAttribute("aria-label", text.replaceAll("\n", ", "));
    el.setAttribute("tabindex", "-1");
  }
};

export const answering = ({ svg, vertices, links, told }) => {
  name(told);
  widen(links);
  ring(vertices);
  svg.setAttribute("role", "group");
};

export const hovering = (root, { edges, kernels, told }, { silent, signal }) => {
  const tip = root.querySelector(".tip"), stage = root.querySelector(".stage");
  let hot = null;
  const heat = (el, on) => {
    el.classList.toggle("hot", on);
    kernels.get(el.dataset.id)?.classList.toggle("hot", on);
  };
  const show = (el, x = 0, y = 0) => {
    if (el !== hot) {
      if (hot) heat(hot, false);
      if (el) heat(el, true);
      hot = el;
    }
    tip.hidden = !el;
    if (!el) return;
    tip.textContent = told.get(el);
    const room = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - room.width - 8))}px`;
    tip.style.top = `${y + 18 + room.height > innerHeight ? y - room.height - 12 : y + 18}px`;
  };
  const at = (node) => {
    const el = node.closest?.(ANSWERS) ?? null;
    return el?.classList.contains("kernel") ? edges.get(el.dataset.edge) : el;
  };
  // A finger does not hover; after a tap the hint would lie over what it tells of. What is selected is told by the panel.
  const moved = (e) => {
    const el = e.buttons || e.pointerType === "touch" ? null : at(e.target);
    show(el && silent(el) ? null : el, e.clientX, e.clientY);
  };
  stage.addEventListener("pointermove", moved, { signal });
  stage.addEventListener("pointerleave", () => show(null), { signal });
  return {
    at,
    show,
    hide: () => show(null),
    tell(el) {
      const box = el.getBoundingClientRect();
      show(el, box.x + box.width / 2, box.y + box.height);
    },
  };
};

export const selecting = (root, graph, { onChange }) => {
  const { svg, vertices, kernels, trunks, told } = graph;
  const status = root.querySelector(".status"), back = root.querySelector('[name="back"]'), hint = status.textContent;
  let selected = null;

  const clear = () => {
    selected?.setAttribute("aria-pressed", "false");
    selected = null;
    svg.classList.remove("isolated");
    for (const el of svg.querySelectorAll(".lit")) el.classList.remove("lit");
    status.textContent = hint;
    back.hidden = true;
  };
  const light = (ids, links) => {
    const pairs = new Set([...links].map((link) => link.key));
    for (const id of ids) vertices.get(id).el.classList.add("lit");
    for (const { el } of links) {
      el.classList.add("lit");
      kernels.get(el.dataset.id)?.classList.add("lit");
    }
    for (const trunk of trunks) if (trunk.pairs.some((pair) => pairs.has(pair))) trunk.el.classList.add("lit");
  };
  const release = () => {
    if (!selected) return;
    clear();
    onChange(null);
  };
  const select = (el) => {
    if (el === selected) return release();
    clear();
    const [ids, links] = graph.through(el);
    light(ids, links);
    svg.classList.add("isolated");
    selected = el;
    el.setAttribute("aria-pressed", "true");
    back.hidden = false;
    const lines = [...links].filter((link) => link.el.classList.contains("edge")).length;
    const title = told.get(el).split("\n")[0];
    status.textContent = `Paths through ${title}: ${ids.size} vertices, ${lines} lines`;
    onChange(el);
  };
  return { select, release, selected: () => selected, open: (el) => !selected || el.classList.contains("lit") };
};
