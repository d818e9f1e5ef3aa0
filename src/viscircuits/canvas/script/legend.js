// The key and the inset, taken out of the drawing: they stay readable and in sight wherever the window is.

const MARGIN = 3;
const ROOM = 19; // pixels between the words above a sample line and those below it

const moved = (svg, group) => {
  const box = group.getBBox(), own = document.createElementNS(svg.namespaceURI, "svg");
  const width = box.width + 2 * MARGIN, height = box.height + 2 * MARGIN;
  own.setAttribute("viewBox", `${box.x - MARGIN} ${box.y - MARGIN} ${width} ${height}`);
  own.setAttribute("width", width);
  own.setAttribute("height", height);
  own.setAttribute("font-family", svg.getAttribute("font-family"));
  own.append(group);
  return own;
};

const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

export const legend = (root, svg, signal) => {
  const holder = root.querySelector(".legend"), button = root.querySelector('[name="legend"]');
  for (const group of svg.querySelectorAll(".key, .inset")) holder.append(moved(svg, group));
  button.hidden = !holder.childElementCount;
  const samples = [...holder.querySelectorAll(".key path")].map((el) => [el, Number(el.getAttribute("stroke-width") ?? 1)]);
  const show = (on) => {
    holder.hidden = !on;
    button.setAttribute("aria-expanded", String(on));
  };
  button.addEventListener("click", () => show(holder.hidden), { signal });
  return {
    // Lines grow as one comes closer, and so do the samples, or the legend would lie. One too wide for its place goes.
    scaled(scale) {
      for (const [el, width] of samples) {
        el.setAttribute("stroke-width", width * scale);
        el.setAttribute("visibility", width * scale > ROOM ? "hidden" : "visible");
      }
    },
    // It is open from the start where it lies over nothing that it explains, which is seldom so on a phone.
    settle() {
      show(true);
      const own = [...holder.children].map((el) => el.getBoundingClientRect());
      const drawn = [...svg.querySelectorAll(".vertex")].map((el) => el.getBoundingClientRect());
      show(!own.some((a) => drawn.some((b) => meet(a, b))));
    },
  };
};
