"""How fast a diagram's page answers: 300 kernels one by one in a real Chromium, rendered in software, 1280 x 800.

    uv run python benchmarks/page.py

Prints the milliseconds of script a frame and the median frame, for zoom, pan and feature size, for opening one panel
after another, and for zoom and pan with a panel open; the page's size; and the processor seconds of drawing it.
"""

import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

import viscircuits as vc

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
FRAMES = 60

LOOP = """
async ([act, frames]) => {
  const svg = document.querySelector(".picture > svg"), {x, y, width, height} = svg.getBoundingClientRect();
  const middle = { clientX: x + width / 2, clientY: y + height / 2, bubbles: true, cancelable: true, pointerId: 7 };
  const slider = document.querySelector('[name="feature"]'), all = [...document.querySelectorAll(".vertex")];
  const acts = {
    zoom: (i) => svg.dispatchEvent(new WheelEvent("wheel", { ...middle, deltaY: i % 40 < 20 ? -60 : 60 })),
    pan: (i) => {
      const clientX = middle.clientX + 9 * (i % 20);
      svg.dispatchEvent(new PointerEvent("pointermove", { ...middle, clientX }));
    },
    size: (i) => { slider.value = 1 + (i % 30) / 20; slider.dispatchEvent(new Event("input")); },
    open: (i) => all[i % all.length].dispatchEvent(new MouseEvent("click", { bubbles: true })),
  };
  svg.setPointerCapture = () => {};
  if (act === "pan") svg.dispatchEvent(new PointerEvent("pointerdown", middle));
  const frame = () => new Promise(requestAnimationFrame);
  const times = [];
  await frame();
  for (let i = 0; i < frames; i++) {
    const start = performance.now();
    acts[act](i);
    await frame();
    await frame();  // what was asked for in one frame is painted by the next
    times.push((performance.now() - start) / 2);
  }
  if (act === "pan") svg.dispatchEvent(new PointerEvent("pointerup", middle));
  return times;
}
"""


def drawn(most: int) -> tuple[vc.Diagram, float]:
    """A diagram of 300 kernels, and the processor seconds that drawing it took."""
    torch.manual_seed(0)
    sizes = [3, 12, 11, 11, 4]
    layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes)]
    network = nn.Sequential(*[module for layer in layers for module in (layer, nn.ReLU())]).eval()
    images = vc.ImageSet.from_tensors(torch.randn(24, 3, 48, 48))
    scores = vc.score(network, vc.Target("6", 1), images, criterion="actgrad")
    circuit = vc.Circuit(network, vc.Target("6", 1), scores.select(density=1.0))
    vc.diagram(circuit, scores=scores, images=images, pictures="crops", most=most)  # the first call compiles
    start = time.process_time()
    made = vc.diagram(circuit, scores=scores, images=images, pictures="crops", most=most)
    made.html()
    return made, time.process_time() - start


def main() -> None:
    """Prints the table."""
    from playwright.sync_api import sync_playwright

    from browser import launched

    torch.set_num_threads(1)
    made, seconds = drawn(most=300)
    page_text = made.html()
    print(f"{len(made.content.edges)} edges, drawn in {seconds:.2f} s, page {len(page_text) / 1e6:.2f} MB")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        (Path(folder) / "page.html").write_text(page_text)
        chromium = launched(playwright)
        page = chromium.new_page(viewport={"width": 1280, "height": 800})
        page.goto((Path(folder) / "page.html").as_uri())
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")

        def spent() -> dict[str, float]:
            metrics = session.send("Performance.getMetrics")["metrics"]
            return {metric["name"]: 1000 * metric["value"] for metric in metrics}

        for act in ("zoom", "pan", "size", "open", "zoom", "pan"):
            before = spent()
            times = page.evaluate(LOOP, [act, FRAMES])
            after = spent()
            # what a script asks of the layout is counted in it, though it would be due in the frame anyhow
            laid = sum(after[name] - before[name] for name in ("LayoutDuration", "RecalcStyleDuration"))
            script = (after["ScriptDuration"] - before["ScriptDuration"]) / (2 * FRAMES)
            print(
                f"{act:5} script {script:5.2f} ms a frame, style and layout {laid / (2 * FRAMES):5.2f} ms, "
                f"median frame {statistics.median(times):6.1f} ms"
            )
        chromium.close()


if __name__ == "__main__":
    main()
