// What was selected, closely: its picture, its numbers, and what it reads and feeds, strongest first.
import { opened, unfolding } from "./bundle.js";
import { bar, copied, facts, image, make, plural, short, signed, weighed } from "./elements.js";

const sharp = (picture) => (picture.hasAttribute("image-rendering") ? "sharp" : "");

const href = (el) => el?.querySelector("image")?.getAttribute("href");

const captioned = (picture, caption) => make("figure", "", picture, make("figcaption", "", caption));

export const panelled = (root, graph, data, { select, signal }) => {
  const panel = root.querySelector(".panel");
  const title = panel.querySelector(".name"), body = panel.querySelector(".body");
  let reason = null;

  const vertex = (id) => data.vertices[id];
  const edge = (link) => data.edges[link.key];
  const others = (id) => graph.vertices.get(id).el;

  const copy = (drawn) => image(drawn.getAttribute("href"), "", sharp(drawn));

  // Alone, or beside the one of the full model. The target's drawing has both; its first one is the circuit's.
  const picture = (el, { name, original }) => {
    const [own] = el.querySelectorAll("image");
    if (!own) return make("div", "large", copied(el, name));
    const shown = image(own.getAttribute("href"), name, sharp(own));
    if (!original) return make("div", "large", shown);
    const full = image(original, `${name} in the full model`, sharp(own));
    return make("div", "large pair", captioned(shown, "in the circuit"), captioned(full, "in the full model"));
  };
  // A bundle's strongest filters with their numbers. Their pictures are those of the sheet, in the same order; where
  // that has none, or not for all, it is shown itself.
  const sheet = (el, { name, members, strongest }) => {
    const pictures = [...el.querySelectorAll("image")], drawn = pictures.length === strongest.length;
    const compared = strongest.some(({ original }) => original);
    if (!drawn && !compared) return [make("div", "large", copied(el, name))];
    const cells = strongest.map(({ channel, original }, i) => {
      const both = drawn ? [copy(pictures[i])] : [];
      if (original) both.push(image(original, `${channel} in the full model`, ""));
      return captioned(make("span", "both", ...both), String(channel));
    });
    const heading = `Its strongest filters, ${strongest.length} of ${members.toLocaleString("en")}`;
    const beside = compared ? ", in the circuit and in the full model" : "";
    return [make("p", "part", heading + beside), make("div", compared ? "members wide" : "members", ...cells)];
  };
  const crops = ({ name, crops: pieces = [] }) => {
    if (!pieces.length) return [];
    const strip = make("div", "crops", ...pieces.map((one) => image(one, `what excites ${name}`, "")));
    return [make("p", "part", "Excites it most"), strip];
  };
  const thumbnail = (link, kernel) => {
    const drawn = kernel && href(graph.kernels.get(link.el.dataset.id));
    return make("span", "thumbnail", drawn ? image(drawn, "", "sharp") : kernel ? `×${kernel.count.toLocaleString("en")}` : "→");
  };
  const row = (link, end, largest, folds = true) => {
    const kernel = edge(link), button = make("button", "row");
    button.type = "button";
    const words = make("span", "words", make("b", "", vertex(link[end]).name));
    if (kernel) {
      const colour = link.el.querySelector("path").getAttribute("stroke");
      words.append(bar(kernel.magnitude / largest, colour), make("small", "", weighed(kernel, data.measure)));
    }
    button.append(thumbnail(link, kernel), words);
    button.addEventListener("click", () => select(others(link[end])));
    return make("li", "", button, ...(folds && kernel?.kernels ? [unfolding(kernel, data.measure)] : []));
  };
  const magnitude = (link) => edge(link)?.magnitude ?? 0;
  const listed = (heading, links, end) => {
    if (!links.length) return [];
    const sorted = [...links].sort((a, b) => magnitude(b) - magnitude(a));
    const rows = sorted.map((link) => row(link, end, magnitude(sorted[0]) || 1));
    return [make("p", "part", `${heading} (${links.length})`), make("ul", "links", ...rows)];
  };

  const about = (id) => {
    const { kind, target, score, members: count } = vertex(id);
    const { into, out } = graph.vertices.get(id);
    const sum = (links) => links.reduce((total, link) => total + (edge(link)?.count ?? 0), 0).toLocaleString("en");
    const pairs = [["what", target ? `${kind}, target`.replace("target, target", "target") : kind]];
    if (count) pairs.push(["stands for", plural(count, "filter")]);
    if (into.some(edge)) pairs.push([data.measure, `${short(score)}, summed over its kernels`]);
    return [...pairs, ["kernels", `${sum(into)} in, ${sum(out)} out`]];
  };
  const ofVertex = (el) => {
    const id = el.dataset.id, own = vertex(id), { into, out } = graph.vertices.get(id);
    title.textContent = own.name;
    if (own.strongest) body.append(facts(about(id)), ...sheet(el, own));
    else body.append(picture(el, own), facts(about(id)), ...crops(own));
    body.append(...listed("Inputs, by weight", into, "source"), ...listed("Outputs, by weight", out, "target"));
  };
  const ofLink = (el) => {
    const link = graph.linkOf.get(el), kernel = edge(link), drawn = href(graph.kernels.get(el.dataset.id));
    title.textContent = graph.told.get(el).split("\n")[0];
    if (drawn) body.append(make("div", "large", image(drawn, "its kernel", "sharp")));
    if (kernel) body.append(facts(ofKernel(kernel)));
    else body.append(make("p", "", "A channel that goes on without a kernel."));
    if (kernel?.kernels) body.append(make("p", "part", "Its kernels, by weight"), ...opened(kernel, data.measure));
    for (const [heading, end] of [["From", "source"], ["To", "target"]])
      body.append(make("p", "part", heading), make("ul", "links", row(link, end, kernel?.magnitude || 1, false)));
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
