// The two sliders. Larger pictures push columns and rows apart, and lines and headings follow; kernels only grow.
//
// Between columns the room stays what it is. Heights are stretched by one factor, so that the drawing keeps its shape.
// Everything is moved by the attribute `transform`, which also a page takes that allows no inline style.

const PAD = 8; // pixels that stay free between rows, as the drawing has it
const LETTER = 11; // height of a heading's line above its baseline

const numbers = (text) => text.match(/-?\d+(?:\.\d+)?/g).map(Number);

const origin = (el) => numbers(el.getAttribute("transform-origin"));

// How far a vertex reaches about its centre: its picture to the sides, with its label below.
const measured = (el) => {
  const [x, y] = origin(el), own = [...el.children].filter((child) => !child.classList.contains("ring"));
  const boxes = own.map((child) => child.getBBox()), [picture] = boxes;
  const up = y - Math.min(...boxes.map((box) => box.y));
  const down = Math.max(...boxes.map((box) => box.y + box.height)) - y;
  return { el, x, y, half: picture.width / 2, up, down, above: 0 };
};

// Columns from the left, each with its vertices from the top. The centres of one column are equal to the digit.
const columnsOf = (marks) => {
  const byX = new Map();
  for (const mark of marks) byX.set(mark.x, [...(byX.get(mark.x) ?? []), mark]);
  const columns = [...byX].map(([x, all]) => ({ x, all: all.sort((a, b) => a.y - b.y), half: Math.max(...all.map((m) => m.half)) }));
  return columns.sort((a, b) => a.x - b.x);
};

// A line's end lies at the edge of a vertex, or of the column that it passes.
const endAt = (columns, x, y) => {
  const column = columns.reduce((a, b) => (Math.abs(a.x - x) <= Math.abs(b.x - x) ? a : b));
  const mark = column.all.find((one) => Math.abs(one.y - y) <= one.half + 0.1);
  return { column, dx: x - column.x, y: mark ? mark.y : y, dy: mark ? y - mark.y : 0 };
};

const curve = ([ax, ay], [bx, by]) => {
  const bend = 0.45 * (bx - ax); // as in geometry/curves.py
  return [[ax, ay], [ax + bend, ay], [bx - bend, by], [bx, by]];
};

const at = (points, t) => {
  const s = 1 - t, weights = [s ** 3, 3 * s * s * t, 3 * s * t * t, t ** 3];
  return [0, 1].map((axis) => points.reduce((sum, point, i) => sum + weights[i] * point[axis], 0));
};

// Where along a curve something sits; curves never turn back, so that x tells.
const along = (points, x) => {
  let low = 0, high = 1;
  for (let i = 0; i < 20; i++) {
    const t = (low + high) / 2;
    if (at(points, t)[0] < x) low = t;
    else high = t;
  }
  return low;
};

const read = ({ svg, vertices, kernels, edges }) => {
  const marks = [...vertices.values()].map(({ el }) => measured(el)), columns = columnsOf(marks);
  const headings = [...svg.querySelectorAll(".circuit > text")].map((el) => {
    const x = Number(el.getAttribute("x")), y = Number(el.getAttribute("y"));
    const below = marks.filter((mark) => mark.x === x && mark.y > y);
    const owner = below.reduce((a, b) => (a.y <= b.y ? a : b));
    owner.above = Math.max(owner.above, owner.y - owner.up - y + LETTER);
    return { el, owner };
  });
  const lines = [...svg.querySelectorAll(".edge, .wire, .trunk")].flatMap((el) => {
    const hit = el.querySelector(".hit"); // the wide one above the line, which is easier to meet
    return [...el.querySelectorAll("path:not(.hit)")].map((path) => {
      const d = path.getAttribute("d"), n = numbers(d);
      const ends = { start: endAt(columns, n[0], n[1]), end: endAt(columns, ...n.slice(-2)) };
      return { el, paths: hit ? [path, hit] : [path], straight: d.includes("L"), ...ends };
    });
  });
  const lineOf = new Map(lines.map((line) => [line.el, line]));
  const pictures = [...kernels].map(([id, el]) => {
    const [x, y] = origin(el), line = lineOf.get(edges.get(id)), old = numbers(line.paths[0].getAttribute("d"));
    return { el, x, y, line, t: along(curve(old.slice(0, 2), old.slice(-2)), x) };
  });
  return { columns, marks, headings, lines, pictures };
};

// A column's middle -> its new one. Where pictures shrink, columns stay: only larger ones need room.
const spread = (columns, size) => {
  const places = new Map([[columns[0].x, columns[0].x]]);
  for (let i = 1; i < columns.length; i++) {
    const [before, column] = [columns[i - 1], columns[i]], more = Math.max(0, size - 1) * (before.half + column.half);
    places.set(column.x, places.get(before.x) + column.x - before.x + more);
  }
  return places;
};

const stretch = (columns, size) => {
  let most = 1;
  for (const { all } of columns)
    for (let i = 1; i < all.length; i++) {
      const [a, b] = [all[i - 1], all[i]], apart = b.y - a.y;
      const pad = Math.min(PAD, apart - a.down - b.up - b.above);
      most = Math.max(most, (size * (a.down + b.up) + b.above + pad) / apart);
    }
  return most;
};

const written = (value) => value.toFixed(2);

// Scaled about its own origin, and moved.
const put = (el, dx, dy, scale = 1) => el.setAttribute("transform", `translate(${written(dx)} ${written(dy)}) scale(${scale})`);

// onChange is called after a frame in which the drawing has got another size.
export const sizable = (root, graph, { onChange, signal }) => {
  let drawing = null, waiting = 0;
  const value = (name) => Number(root.querySelector(`[name="${name}"]`).value);
  const apply = () => {
    waiting = 0;
    drawing ??= read(graph); // measuring takes a layout, which most readers need not wait for
    const size = value("feature"), kernel = value("kernel");
    const places = spread(drawing.columns, size), high = stretch(drawing.columns, size);
    const moved = ({ column, dx, y, dy }) => [places.get(column.x) + size * dx, high * y + size * dy];
    for (const { all, x } of drawing.columns) for (const mark of all) put(mark.el, places.get(x) - x, (high - 1) * mark.y, size);
    for (const { el, owner } of drawing.headings)
      put(el, places.get(owner.x) - owner.x, (high - 1) * owner.y - (size - 1) * owner.up);
    for (const line of drawing.lines) {
      const [a, b] = [moved(line.start), moved(line.end)];
      line.points = curve(a, b);
      const text = line.points.map((point) => point.map(written).join(" "));
      const d = line.straight ? `M${text[0]}L${text.at(-1)}` : `M${text[0]}C${text.slice(1).join(" ")}`;
      for (const path of line.paths) path.setAttribute("d", d);
    }
    for (const { el, x, y, line, t } of drawing.pictures) {
      const [newX, newY] = at(line.points, t);
      put(el, newX - x, newY - y, kernel);
    }
    onChange();
  };
  const due = () => (waiting ||= requestAnimationFrame(apply));
  for (const name of ["feature", "kernel"]) root.querySelector(`[name="${name}"]`).addEventListener("input", due, { signal });
};
