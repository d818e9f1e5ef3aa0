// A bundle opened: the kernels that one line stands for, drawn, by weight.
import { bar, kernel, make, plural, weighed } from "./elements.js";

// The list of a line's kernels, with a word on those that the page does not hold.
export const opened = ({ kernels, count }, measure) => {
  const largest = kernels[0].magnitude || 1;
  const rows = kernels.map((one) => {
    const share = bar(one.magnitude / largest, `var(--${one.colour})`);
    const words = make("span", "words", make("b", "", one.name), share, make("small", "", weighed(one, measure)));
    return make("li", "row", make("span", "thumbnail", kernel(one, `kernel ${one.name}`)), words);
  });
  const rest = count - kernels.length;
  const more = rest ? [make("p", "more", `and ${plural(rest, "kernel")} of smaller weight`)] : [];
  return [make("ul", "links", ...rows), ...more];
};

// The same below a row of a list, made when it is opened: all of a page's kernels would be thousands.
export const unfolding = (line, measure) => {
  const fold = make("details", "fold", make("summary", "", `Show ${plural(line.count, "kernel")}`));
  fold.addEventListener("toggle", () => fold.childElementCount > 1 || fold.append(...opened(line, measure)));
  return fold;
};
