"use strict";
// The diagram answers: what is this (hover), what runs through it (click, Enter), where next (arrow keys).
const diagram = (root) => {
  // listeners of focus on the svg itself would make it a stop of its own: they are on its parent
  const main = root.querySelector(".picture"), svg = main.querySelector("svg");
  const control = (name) => root.querySelector(`[name="${name}"]`);
  const all = (query) => [...svg.querySelectorAll(query)];
  const NS = svg.namespaceURI;

  // ---- the graph, read off the picture ----
  const vertices = new Map(all(".vertex").map((el) => [el.dataset.id, { el, into: [], out: [] }]));
  const links = all(".edge, .wire").map((el) => ({ el, source: el.dataset.source, target: el.dataset.target }));
  const linkOf = new Map(links.map((link) => [link.el, link]));
  const edges = new Map(all(".edge").map((el) => [el.dataset.id, el]));
  for (const link of links) {
    vertices.get(link.source).out.push(link);
    vertices.get(link.target).into.push(link);
  }
  const strength = (link) => (link.el.classList.contains("edge") ? Number(link.el.dataset.score) : 0);
  for (const v of vertices.values()) for (const side of [v.into, v.out]) side.sort((a, b) => strength(b) - strength(a));
  const kernels = new Map(all(".kernel").map((el) => [el.dataset.edge, el]));
  const trunks = all(".trunk").map((el) => ({ el, pairs: el.dataset.links.split(" ") }));

  const told = new Map();
  for (const el of [...all(".vertex"), ...all(".edge, .wire, .inset")]) { // a wire is told by its ends
    const title = el.querySelector(":scope > title");
    const names = [el.dataset.source, el.dataset.target].map((id) => id && told.get(vertices.get(id).el));
    const text = title ? title.textContent : names.map((name) => name.split("\n")[0]).join(" → ");
    if (title) title.remove(); // or the browser shows it too
    told.set(el, text);
    if (el.classList.contains("inset")) continue;
    el.setAttribute("role", "button");
    el.setAttribute("aria-label", text.replaceAll("\n", ", "));
    el.setAttribute("tabindex", "-1");
  }
  svg.setAttribute("role", "group");

  for (const { el } of links) { // thin lines are hard to hit
    const path = el.querySelector("path");
    const hit = path.cloneNode();
    hit.setAttribute("class", "hit");
    hit.setAttribute("stroke-width", Math.max(11, Number(path.getAttribute("stroke-width") || 1) + 5));
    el.append(hit);
  }
  for (const { el } of vertices.values()) {
    const box = el.getBBox();
    const ring = document.createElementNS(NS, "rect");
    for (const [name, value] of Object.entries({ x: box.x - 3, y: box.y - 3, width: box.width + 6, height: box.height + 6, rx: 6, class: "ring" }))
      ring.setAttribute(name, value);
    el.append(ring);
  }

  // ---- hover ----
  const tip = document.getElementById("tip");
  const thing = (node) => {
    const el = node.closest?.(".vertex, .edge, .wire, .kernel, .inset");
    return el?.classList.contains("kernel") ? edges.get(el.dataset.edge) : el;
  };
  const heat = (el, on) => {
    el.classList.toggle("hot", on);
    kernels.get(el.dataset.id)?.classList.toggle("hot", on);
  };
  let hot = null;
  const show = (el, x, y) => {
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
  svg.addEventListener("pointermove", (e) => show(thing(e.target), e.clientX, e.clientY));
  svg.addEventListener("pointerleave", () => show(null));

  // ---- isolation ----
  const status = root.querySelector(".status"), back = control("back"), hint = status.textContent;
  let isolated = null;
  const reach = (starts, side, end) => {
    const seen = new Set(starts), stack = [...starts], crossed = new Set();
    while (stack.length)
      for (const link of vertices.get(stack.pop())[side]) {
        crossed.add(link);
        if (!seen.has(link[end])) { seen.add(link[end]); stack.push(link[end]); }
      }
    return [seen, crossed];
  };
  const release = () => {
    isolated?.setAttribute("aria-pressed", "false");
    isolated = null;
    svg.classList.remove("isolated");
    for (const el of all(".lit")) el.classList.remove("lit");
    status.textContent = hint;
    back.hidden = true;
  };
  const isolate = (el) => {
    if (el === isolated) return release();
    release();
    const link = linkOf.get(el);
    const [before, incoming] = reach([link ? link.source : el.dataset.id], "into", "source");
    const [after, outgoing] = reach([link ? link.target : el.dataset.id], "out", "target");
    const lit = new Set([...incoming, ...outgoing, ...(link ? [link] : [])]);
    const pairs = new Set([...lit].map((l) => `${l.source}>${l.target}`));
    for (const id of [...before, ...after]) vertices.get(id).el.classList.add("lit");
    for (const l of lit) { l.el.classList.add("lit"); kernels.get(l.el.dataset.id)?.classList.add("lit"); }
    for (const trunk of trunks) if (trunk.pairs.some((pair) => pairs.has(pair))) trunk.el.classList.add("lit");
    svg.classList.add("isolated");
    isolated = el;
    el.setAttribute("aria-pressed", "true");
    const lines = [...lit].filter((l) => l.el.classList.contains("edge")).length;
    const name = told.get(el).split("\n")[0];
    status.textContent = `Paths through ${name}: ${new Set([...before, ...after]).size} vertices, ${lines} lines. Click it again, or press Esc, to return.`;
    back.hidden = false;
  };
  svg.addEventListener("click", (e) => {
    const el = thing(e.target);
    if (!el) return release();
    if (el.classList.contains("inset")) return;
    place(el, false);
    isolate(el);
  });
  back.addEventListener("click", release);

  // ---- keys: one place in the tab order, arrows from there ----
  let cursor = null;
  const place = (el, visible = true) => {
    cursor?.classList.remove("cursor");
    cursor?.setAttribute("tabindex", "-1");
    cursor = el;
    el.setAttribute("tabindex", "0");
    el.classList.toggle("cursor", visible);
    el.focus({ preventScroll: !visible });
  };
  const goal = all(".vertex[data-goal]")[0] ?? all(".vertex")[0];
  cursor = goal;
  goal.setAttribute("tabindex", "0");
  const middle = (el) => { const b = el.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; };
  const open = (el) => !isolated || el.classList.contains("lit");
  const beside = (el, down) => {
    const link = linkOf.get(el), [x, y] = middle(el);
    const peers = link
      ? links.filter((l) => (l.source === link.source || l.target === link.target) && l !== link).map((l) => l.el)
      : [...vertices.values()].map((v) => v.el).filter((o) => o !== el && Math.abs(middle(o)[0] - x) < 4);
    const gaps = peers.filter(open).map((o) => [down ? middle(o)[1] - y : y - middle(o)[1], o]);
    return gaps.filter(([gap]) => gap > 0).sort((a, b) => a[0] - b[0])[0]?.[1];
  };
  const along = (el, right) => {
    const link = linkOf.get(el);
    if (link) return vertices.get(right ? link.target : link.source).el;
    return vertices.get(el.dataset.id)[right ? "out" : "into"].find((l) => open(l.el))?.el;
  };
  const steps = {
    ArrowLeft: (el) => along(el, false), ArrowRight: (el) => along(el, true),
    ArrowUp: (el) => beside(el, false), ArrowDown: (el) => beside(el, true),
  };
  main.addEventListener("keydown", (e) => {
    const el = cursor;
    if (!told.has(e.target)) return;
    if (steps[e.key]) {
      const next = steps[e.key](el);
      if (next) { place(next); tell(next); }
    } else if (e.key === "Enter" || e.key === " ") isolate(el);
    else return;
    e.preventDefault();
  });
  const tell = (el) => { const b = el.getBoundingClientRect(); show(el, b.x + b.width / 2, b.y + b.height); };
  main.addEventListener("focusin", (e) => {
    if (told.has(e.target) && e.target.matches(":focus-visible")) { e.target.classList.add("cursor"); tell(e.target); }
  });
  main.addEventListener("focusout", (e) => { e.target.classList.remove("cursor"); show(null); });
  addEventListener("keydown", (e) => { if (e.key === "Escape") { release(); show(null); } });

  // ---- controls ----
  for (const name of ["feature", "kernel"])
    control(name).addEventListener("input", (e) => svg.style.setProperty(`--${name}`, e.target.value));
  control("help").addEventListener("click", (e) => {
    const keys = root.querySelector(".keys");
    keys.hidden = !keys.hidden;
    e.target.setAttribute("aria-expanded", String(!keys.hidden));
  });
};
document.querySelectorAll(".diagram").forEach(diagram);

const themes = ["auto", "light", "dark"];
document.getElementById("theme").addEventListener("click", (e) => {
  const page = document.documentElement;
  const next = themes[(themes.indexOf(page.dataset.theme ?? "auto") + 1) % 3];
  if (next === "auto") delete page.dataset.theme; else page.dataset.theme = next;
  e.target.textContent = `Theme: ${next}`;
});
