// The graph behind a drawing, read off its elements: vertices, links, and what each is called.

const strength = (link) => Number(link.el.dataset.score ?? 0);

const linked = (el) => ({ el, source: el.dataset.source, target: el.dataset.target, key: `${el.dataset.source}>${el.dataset.target}` });

const paths = (vertices, starts, side, end) => {
  const seen = new Set(starts), stack = [...starts], crossed = new Set();
  while (stack.length)
    for (const link of vertices.get(stack.pop())[side]) {
      crossed.add(link);
      if (!seen.has(link[end])) {
        seen.add(link[end]);
        stack.push(link[end]);
      }
    }
  return [seen, crossed];
};

// Titles become our own hints. Left in place, the browser would show them too.
const names = (svg, vertices) => {
  const told = new Map();
  // Vertices come first, though they stand behind the lines in the file: a wire has no title, its ends tell it.
  for (const el of [...svg.querySelectorAll(".vertex"), ...svg.querySelectorAll(".edge, .wire, .inset")]) {
    const title = el.querySelector(":scope > title");
    const ends = [el.dataset.source, el.dataset.target].map((id) => id && told.get(vertices.get(id).el));
    told.set(el, title ? title.textContent : ends.map((name) => name.split("\n")[0]).join(" → "));
    title?.remove();
  }
  return told;
};

export const readGraph = (svg) => {
  const all = (query) => [...svg.querySelectorAll(query)];
  const vertices = new Map(all(".vertex").map((el) => [el.dataset.id, { el, into: [], out: [] }]));
  const links = all(".edge, .wire").map(linked);
  for (const link of links) {
    vertices.get(link.source).out.push(link);
    vertices.get(link.target).into.push(link);
  }
  for (const { into, out } of vertices.values())
    for (const side of [into, out]) side.sort((a, b) => strength(b) - strength(a));
  const linkOf = new Map(links.map((link) => [link.el, link]));
  return {
    svg,
    vertices,
    links,
    linkOf,
    edges: new Map(all(".edge").map((el) => [el.dataset.id, el])),
    kernels: new Map(all(".kernel").map((el) => [el.dataset.edge, el])),
    trunks: all(".trunk").map((el) => ({ el, pairs: el.dataset.links.split(" ") })),
    told: names(svg, vertices),
    goal: svg.querySelector(".vertex[data-goal]") ?? svg.querySelector(".vertex"),
    // Everything on a path through a vertex or link: [ids of vertices, links].
    through(el) {
      const link = linkOf.get(el);
      const [before, incoming] = paths(vertices, [link ? link.source : el.dataset.id], "into", "source");
      const [after, outgoing] = paths(vertices, [link ? link.target : el.dataset.id], "out", "target");
      return [new Set([...before, ...after]), new Set([...incoming, ...outgoing, ...(link ? [link] : [])])];
    },
  };
};
