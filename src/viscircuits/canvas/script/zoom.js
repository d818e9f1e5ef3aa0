// Zoom and pan: one window on the whole drawing, the svg's viewBox, moved by wheel, fingers, drag and buttons.
//
// The window has the frame's own proportions, so that a pixel of the frame is `1 / scale` of the drawing everywhere.

const CLOSEST = 8;
const STEP = 1.3;
const DRAG = 4; // pixels that a hand may shake in a click
const LINE = 16, PAGE = 400; // pixels of a wheel that counts in lines or pages

const between = (low, value, high) => Math.min(high, Math.max(low, value));

const pixels = (e) => e.deltaY * [1, LINE, PAGE][e.deltaMode];

export const zoomable = (frame, svg, { covered, onScale, signal }) => {
  let [left, top, width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
  let room = { width: 0, height: 0 };
  let view = { x: left, y: top, scale: 1 };
  let fitted = true, waiting = 0, painted = 0;

  const free = () => {
    const { top: above, right, bottom } = covered();
    return { above, width: Math.max(80, room.width - right), height: Math.max(80, room.height - above - bottom) };
  };
  const fitting = ({ width: w, height: h }) => Math.min(w / width, h / height);

  // Several events may come within a frame; the drawing is laid out once.
  const paint = () => {
    cancelAnimationFrame(waiting);
    waiting = 0;
    svg.setAttribute("viewBox", `${view.x} ${view.y} ${room.width / view.scale} ${room.height / view.scale}`);
    if (view.scale !== painted) onScale((painted = view.scale));
  };
  // The middle of what is free of the window stays on the drawing, or one could lose it out of sight.
  const move = ({ x, y, scale }) => {
    const open = free(), w = open.width / scale / 2, h = (open.above + open.height / 2) / scale;
    view = { scale, x: between(left, x + w, left + width) - w, y: between(top, y + h, top + height) - h };
    fitted = false;
    waiting ||= requestAnimationFrame(paint);
  };
  const fit = () => {
    const open = free(), scale = Math.min(fitting(open), 1.3);
    view = { scale, x: left + (width - open.width / scale) / 2, y: top + (height - open.height / scale) / 2 - open.above / scale };
    fitted = true;
    waiting ||= requestAnimationFrame(paint);
  };
  // The drawing has another size: a whole one stays whole, of another the same part is seen.
  const resize = (box) => {
    const x = (view.x + room.width / view.scale / 2 - left) / width, y = (view.y + room.height / view.scale / 2 - top) / height;
    ({ x: left, y: top, width, height } = box);
    if (fitted) return fit();
    move({ scale: view.scale, x: left + x * width - room.width / view.scale / 2, y: top + y * height - room.height / view.scale / 2 });
  };
  const zoom = (factor, px, py) => {
    const least = Math.min(0.5, fitting(free()));
    const scale = between(least, view.scale * factor, CLOSEST);
    move({ scale, x: view.x + px / view.scale - px / scale, y: view.y + py / view.scale - py / scale });
  };
  const middle = (factor) => {
    const open = free();
    zoom(factor, open.width / 2, open.above + open.height / 2);
  };
  const pan = (dx, dy) => move({ ...view, x: view.x + dx / view.scale, y: view.y + dy / view.scale });

  // Moves as little as shows an element whole, and clear of the panel. Below a panel along the bottom, a whole drawing
  // stays whole; beside one on the right it stays where it is, or a second click would miss.
  const reveal = (el) => {
    resized();
    const { right, bottom } = covered();
    if (fitted && bottom) return fit();
    if (fitted && !right) return; // all of it is in sight
    if (waiting) paint();
    const box = el.getBoundingClientRect(), at = frame.getBoundingClientRect(), open = free(), rim = 16;
    const shift = (near, far, end) => Math.min(0, near - rim) || Math.max(0, Math.min(far + rim - end, near - rim));
    const dx = shift(box.left - at.left, box.right - at.left, open.width);
    const dy = shift(box.top - at.top - open.above, box.bottom - at.top - open.above, open.height);
    if (dx || dy) pan(dx, dy);
  };

  // On a page that scrolls, a wheel is the page's until the diagram was clicked: nobody shall be caught in passing.
  const scrolls = () => document.documentElement.scrollHeight > innerHeight + 1;
  const ours = (e) => e.ctrlKey || e.metaKey || !scrolls() || frame.contains(document.activeElement);
  const place = (e) => {
    const at = frame.getBoundingClientRect();
    return [e.clientX - at.left, e.clientY - at.top];
  };
  const wheel = (e) => {
    if (!ours(e)) return;
    e.preventDefault(); // with Ctrl the browser would zoom the page as well
    const speed = e.ctrlKey ? 0.01 : 0.0016; // a pinch on a touchpad arrives as small steps with Ctrl
    zoom(Math.exp(-speed * between(-400, pixels(e), 400)), ...place(e));
  };
  svg.addEventListener("wheel", wheel, { passive: false, signal });
  dragging(svg, { place, pan, zoom, signal });

  const resized = () => {
    if (room.width === frame.clientWidth && room.height === frame.clientHeight) return;
    room = { width: frame.clientWidth, height: frame.clientHeight };
    // A finger scrolls the page over a whole drawing, and moves the drawing elsewhere.
    svg.style.touchAction = scrolls() ? "pan-y" : "none";
    if (fitted) fit();
    paint();
  };
  const watch = new ResizeObserver(resized);
  watch.observe(frame);
  signal.addEventListener("abort", () => watch.disconnect());
  addEventListener("beforeprint", () => svg.setAttribute("viewBox", `${left} ${top} ${width} ${height}`), { signal });
  addEventListener("afterprint", paint, { signal });
  resized();
  return { fit, pan, reveal, resize, closer: () => middle(STEP), farther: () => middle(1 / STEP), scale: () => view.scale };
};

// One pointer drags, two pinch; a click that was a drag is none.
const dragging = (svg, { place, pan, zoom, signal }) => {
  const pointers = new Map();
  let start = null, dragged = false;
  const spread = () => {
    const [[ax, ay], [bx, by]] = pointers.values();
    return { x: (ax + bx) / 2, y: (ay + by) / 2, apart: Math.max(1, Math.hypot(ax - bx, ay - by)) };
  };
  const down = (e) => {
    if (e.button) return;
    if (!pointers.size) [start, dragged] = [place(e), false];
    if (pointers.size < 2) pointers.set(e.pointerId, place(e));
  };
  const move = (e) => {
    const before = pointers.get(e.pointerId);
    if (!before) return;
    const [x, y] = place(e);
    if (!dragged && Math.hypot(x - start[0], y - start[1]) < DRAG) return;
    // Captured from the start, the click at the end would be the svg's and not the vertex's.
    if (!dragged) for (const id of pointers.keys()) svg.setPointerCapture(id);
    dragged = true;
    svg.classList.add("dragged");
    const old = pointers.size === 2 ? spread() : null;
    pointers.set(e.pointerId, [x, y]);
    if (!old) return pan(before[0] - x, before[1] - y);
    const now = spread();
    pan(old.x - now.x, old.y - now.y);
    zoom(now.apart / old.apart, now.x, now.y);
  };
  const up = (e) => {
    pointers.delete(e.pointerId);
    if (!pointers.size) svg.classList.remove("dragged");
  };
  svg.addEventListener("pointerdown", down, { signal });
  svg.addEventListener("pointermove", move, { signal });
  for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, up, { signal });
  const swallow = (e) => {
    if (dragged) e.stopImmediatePropagation();
    dragged = false;
  };
  svg.addEventListener("click", swallow, { capture: true, signal });
};
