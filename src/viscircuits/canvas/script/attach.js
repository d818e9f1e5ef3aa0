// A diagram that answers. The only way in, for our pages and for whoever shows a diagram in a page of his own.
import { readGraph } from "./graph.js";
import { keyed } from "./keys.js";
import { legend } from "./legend.js";
import { panelled } from "./panel.js";
import { answering, hovering, selecting } from "./select.js";
import { sizable } from "./sizes.js";
import { zoomable } from "./zoom.js";

const MARGIN = 24;
const NARROW = 700, BUTTONS = 46; // as in page.css

// What the drawing covers, without the margins that it has as a picture of its own.
const drawn = (svg) => {
  const { x, y, width, height } = svg.getBBox();
  return { x: x - MARGIN, y: y - MARGIN, width: width + 2 * MARGIN, height: height + 2 * MARGIN };
};

// Everything is looked up below `root`, and nothing has an id, so that any number stand on one page.
//
// root: a section as interactive.html has it, in the document and laid out.
// data: {measure, vertices: {id: {name, kind, score, ...}}, edges: {"source>target": {score, total, magnitude, count}}}.
// onSelect: called with the id of a vertex, or "source>target", when it was selected; with null when all is shown again.
//
// Returns {select(id), release(), fit(), detach()}; after `detach` nothing listens any more.
export const attach = (root, data, { onSelect = () => {} } = {}) => {
  const ending = new AbortController(), { signal } = ending;
  const frame = root.querySelector(".picture"), svg = frame.querySelector("svg");
  const control = (name) => root.querySelector(`[name="${name}"]`);
  const key = legend(root, svg, signal);
  const box = drawn(svg);
  svg.setAttribute("viewBox", `${box.x} ${box.y} ${box.width} ${box.height}`);
  frame.parentElement.style.aspectRatio = `${box.width} / ${box.height}`; // where the page leaves the height to us

  const graph = readGraph(svg);
  answering(graph);
  const named = (el) => graph.linkOf.get(el)?.key ?? el.dataset.id;
  const hover = hovering(root, graph, { silent: (el) => el === selection.selected(), signal });
  const selection = selecting(root, graph, {
    onChange(el) {
      if (el) {
        panel.show(el);
        zoom.reveal(el);
      } else panel.close();
      onSelect(el && named(el));
    },
  });
  const jump = (el) => {
    if (el !== selection.selected()) selection.select(el);
    keys.place(el);
  };
  const panel = panelled(root, graph, data, { select: jump, signal });
  // What lies over the drawing: the panel, and where it is narrow the buttons, which are beside it elsewhere.
  const covered = () => ({ top: frame.clientWidth > NARROW ? 0 : BUTTONS, ...panel.covered() });
  const zoom = zoomable(frame, svg, { covered, onScale: key.scaled, signal });
  key.settle();
  const escape = () => {
    selection.release();
    panel.close();
    hover.hide();
  };
  const keys = keyed(root, graph, { selection, hover, zoom, escape, signal });

  const clicked = (e) => {
    const el = hover.at(e.target);
    if (!el) return selection.release();
    if (el.classList.contains("inset")) return;
    keys.place(el, false);
    selection.select(el);
    hover.hide();
  };
  svg.addEventListener("click", clicked, { signal });
  const presses = { back: selection.release, closer: zoom.closer, farther: zoom.farther, fit: zoom.fit };
  for (const [name, act] of Object.entries(presses)) control(name).addEventListener("click", act, { signal });
  sizable(root, graph, { onChange: () => zoom.resize(drawn(svg)), signal });
  const explain = (e) => {
    const keys = root.querySelector(".keys");
    keys.hidden = !keys.hidden;
    e.target.setAttribute("aria-expanded", String(!keys.hidden));
  };
  control("help").addEventListener("click", explain, { signal });

  const byId = new Map([...graph.told.keys()].filter((el) => !el.classList.contains("inset")).map((el) => [named(el), el]));
  return {
    select: (id) => byId.has(id) && jump(byId.get(id)),
    release: escape,
    fit: zoom.fit,
    detach: () => ending.abort(),
  };
};
