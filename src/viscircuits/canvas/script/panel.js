// What was selected, closely: its picture, its numbers, and what it reads and feeds, strongest first.

const make = (tag, cls, ...content) => {
  const el = document.createElement(tag);
  if (cls) el.className = cls;
  el.append(...content);
  return el;
};

const image = (href, alt, cls) => {
  const el = make("img", cls);
  el.src = href;
  el.alt = alt;
  return el;
};

const signed = (value) => `${value < 0 ? "−" : "+"}${short(Math.abs(value))}`;

// Three digits, and no exponent where a person would not write one.
export const short = (value) => {
  const text = Number(value.toPrecision(3));
  return Math.abs(text) >= 1e6 || (text && Math.abs(text) < 1e-4) ? text.toExponential(1) : text.toLocaleString("en", { maximumSignificantDigits: 3 });
};

const plural = (count, thing) => `${count.toLocaleString("en")} ${thing}${count === 1 ? "" : "s"}`;

const sharp = (el) => (el?.querySelector("image")?.hasAttribute("image-rendering") ? "sharp" : "");

const href = (el) => el?.querySelector("image")?.getAttribute("href");

// A copy of a drawn mark, cut to its own size.
const copied = (el, alt) => {
  const box = el.getBBox(), svg = document.createElementNS(el.namespaceURI, "svg"), copy = el.cloneNode(true);
  for (const extra of copy.querySelectorAll(".ring, .hit")) extra.remove();
  for (const name of copy.getAttributeNames()) if (name !== "class") copy.removeAttribute(name);
  copy.setAttribute("class", "copy");
  svg.setAttribute("viewBox", `${box.x} ${box.y} ${box.width} ${box.height}`);
  svg.setAttribute("preserveAspectRatio", "xMinYMid");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", alt);
  svg.append(copy);
  return svg;
};

export const panelled = (root, graph, data, { select, signal }) => {
  const panel = root.querySelector(".panel");
  const title = panel.querySelector(".name"), body = panel.querySelector(".body");
  let reason = null;

  const facts = (pairs) => {
    const list = make("dl", "numbers");
    for (const [name, value] of pairs) list.append(make("dt", "", name), make("dd", "", value));
    return list;
  };
  const vertex = (id) => data.vertices[id];
  const edge = (link) => data.edges[link.key];
  const others = (id) => graph.vertices.get(id).el;

  const picture = (el, name) => {
    const pictures = el.querySelectorAll("image");
    const shown = pictures.length === 1 ? image(href(el), name, sharp(el)) : copied(el, name);
    return make("figure", "large", shown);
  };
  const crops = (id) => {
    const found = vertex(id).crops ?? [];
    if (!found.length) return [];
    const strip = make("div", "crops", ...found.map((one) => image(one, `what excites ${vertex(id).name}`, "")));
    return [make("p", "part", "Excites it most"), strip];
  };

  // The bar's length is Σ|w| beside the largest of the list; its colour is the line's, which tells the balance.
  const bar = (link, largest) => {
    const fill = make("i", "");
    fill.style.width = `${(100 * edge(link).magnitude) / largest}%`;
    fill.style.background = link.el.querySelector("path").getAttribute("stroke");
    return make("span", "bar", fill);
  };
  const numbers = (kernel) => {
    const score = data.measure.startsWith("Σ") ? "" : `, ${data.measure} ${short(kernel.score)}`;
    return `Σw ${signed(kernel.total)} of Σ|w| ${short(kernel.magnitude)}${score}`;
  };
  const thumbnail = (link, kernel) => {
    const drawn = kernel && href(graph.kernels.get(link.el.dataset.id));
    return make("span", "thumbnail", drawn ? image(drawn, "", "sharp") : kernel ? `×${kernel.count}` : "→");
  };
  const row = (link, end, largest) => {
    const kernel = edge(link), button = make("button", "row");
    button.type = "button";
    const words = make("span", "words", make("b", "", vertex(link[end]).name));
    if (kernel) words.append(bar(link, largest), make("small", "", numbers(kernel)));
    else words.append(make("small", "", "without a kernel"));
    button.append(thumbnail(link, kernel), words);
    button.addEventListener("click", () => select(others(link[end])));
    return make("li", "", button);
  };
  const magnitude = (link) => edge(link)?.magnitude ?? 0;
  const listed = (heading, links, end) => {
    if (!links.length) return [];
    const sorted = [...links].sort((a, b) => magnitude(b) - magnitude(a));
    const rows = sorted.map((link) => row(link, end, magnitude(sorted[0]) || 1));
    return [make("p", "part", `${heading} (${links.length})`), make("ul", "links", ...rows)];
  };

  const about = (id) => {
    const { kind, target, score, members } = vertex(id);
    const { into, out } = graph.vertices.get(id);
    const count = (links) => links.reduce((sum, link) => sum + (edge(link)?.count ?? 0), 0).toLocaleString("en");
    const pairs = [["what", target ? `${kind}, target`.replace("target, target", "target") : kind]];
    if (members) pairs.push(["stands for", plural(members, "filter")]);
    if (into.some(edge)) pairs.push([data.measure, `${short(score)}, summed over its kernels`]);
    return [...pairs, ["kernels", `${count(into)} in, ${count(out)} out`]];
  };
  const ofVertex = (el) => {
    const id = el.dataset.id, { name } = vertex(id), { into, out } = graph.vertices.get(id);
    title.textContent = name;
    body.append(picture(el, name), facts(about(id)), ...crops(id));
    body.append(...listed("Inputs, by weight", into, "source"), ...listed("Outputs, by weight", out, "target"));
  };
  const ofLink = (el) => {
    const link = graph.linkOf.get(el), kernel = edge(link), drawn = href(graph.kernels.get(el.dataset.id));
    title.textContent = graph.told.get(el).split("\n")[0];
    if (drawn) body.append(make("figure", "large", image(drawn, "its kernel", "sharp")));
    if (kernel) body.append(facts(ofKernel(kernel)));
    else body.append(make("p", "", "A channel that goes on without a kernel."));
    for (const [heading, end] of [["From", "source"], ["To", "target"]])
      body.append(make("p", "part", heading), make("ul", "links", row(link, end, kernel?.magnitude || 1)));
  };
  const ofKernel = ({ score, total, magnitude: sum, count }) => {
    const balance = sum ? total / sum : 0;
    const tone = balance > 0 ? "excites" : balance < 0 ? "inhibits" : "is balanced";
    const pairs = [["Σw", signed(total)], ["Σ|w|", short(sum)], ["balance", `${signed(balance)}: ${tone}`]];
    if (!data.measure.startsWith("Σ")) pairs.unshift([data.measure, short(score)]);
    return count === 1 ? pairs : [["kernels", count.toLocaleString("en")], ...pairs];
  };

  const close = () => {
    if (panel.hidden) return;
    const back = panel.contains(document.activeElement);
    panel.hidden = true;
    if (back) reason?.focus({ preventScroll: true });
  };
  panel.querySelector('[name="close"]').addEventListener("click", close, { signal });
  return {
    close,
    show(el) {
      reason = el;
      body.replaceChildren();
      if (graph.linkOf.has(el)) ofLink(el);
      else ofVertex(el);
      panel.hidden = false;
      panel.scrollTop = 0;
    },
    // What it hides of the drawing. A narrow page has it along the bottom, a wide one on the right.
    covered() {
      if (panel.hidden) return { right: 0, bottom: 0 };
      const frame = panel.parentElement, across = panel.offsetWidth >= frame.clientWidth;
      return across ? { right: 0, bottom: panel.offsetHeight } : { right: panel.offsetWidth, bottom: 0 };
    },
  };
};
