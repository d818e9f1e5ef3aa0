// The small pieces that the panel is made of. No inline styles: lengths and colours are attributes of drawings.

const SVG = "http://www.w3.org/2000/svg";

export const make = (tag, cls, ...content) => {
  const el = document.createElement(tag);
  if (cls) el.className = cls;
  el.append(...content);
  return el;
};

export const drawing = (tag, attributes, ...content) => {
  const el = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) el.setAttribute(name, value);
  el.append(...content);
  return el;
};

export const image = (href, alt, cls) => {
  const el = make("img", cls);
  el.src = href;
  el.alt = alt;
  return el;
};

// A kernel out of its bytes, three a weight; a canvas takes them as they are, and enlarges them with sharp edges.
export const kernel = ({ size: [width, height], pixels }, alt) => {
  const el = make("canvas", "sharp"), bytes = atob(pixels);
  [el.width, el.height] = [width, height];
  const colours = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) colours.data[4 * i + c] = bytes.charCodeAt(3 * i + c);
    colours.data[4 * i + 3] = 255;
  }
  el.getContext("2d").putImageData(colours, 0, 0);
  el.setAttribute("role", "img");
  el.setAttribute("aria-label", alt);
  return el;
};

export const facts = (pairs) => {
  const list = make("dl", "numbers");
  for (const [name, value] of pairs) list.append(make("dt", "", name), make("dd", "", value));
  return list;
};

// The bar's length is a share of the list's largest; its colour tells the balance.
export const bar = (share, colour) =>
  drawing("svg", { class: "bar", "aria-hidden": "true" }, drawing("rect", { width: `${100 * share}%`, height: "100%", rx: 2, fill: colour }));

// A copy of a drawn mark, cut to its own size.
export const copied = (el, alt) => {
  const box = el.getBBox(), copy = el.cloneNode(true);
  for (const extra of copy.querySelectorAll(".ring, .hit")) extra.remove();
  for (const name of copy.getAttributeNames()) if (name !== "class") copy.removeAttribute(name);
  copy.setAttribute("class", "copy");
  const viewBox = `${box.x} ${box.y} ${box.width} ${box.height}`;
  return drawing("svg", { viewBox, preserveAspectRatio: "xMinYMid", role: "img", "aria-label": alt }, copy);
};

// Three digits, and no exponent where a person would not write one.
export const short = (value) => {
  const text = Number(value.toPrecision(3)), size = Math.abs(text);
  if (size >= 1e6 || (size && size < 1e-4)) return text.toExponential(1);
  return text.toLocaleString("en", { maximumSignificantDigits: 3 });
};

export const signed = (value) => `${value < 0 ? "−" : "+"}${short(Math.abs(value))}`;

export const plural = (count, thing) => `${count.toLocaleString("en")} ${thing}${count === 1 ? "" : "s"}`;

// A kernel's numbers in a line; its score only where that is not Σ|w| itself.
export const weighed = ({ score, total, magnitude }, measure) => {
  const more = measure.startsWith("Σ") ? "" : `, ${measure} ${short(score)}`;
  return `Σw ${signed(total)} of Σ|w| ${short(magnitude)}${more}`;
};
