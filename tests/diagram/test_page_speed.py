"""What a frame of 300 kernels costs in a real browser; ``benchmarks/page.py`` measures the whole frame too."""

import pytest
import torch
from torch import nn

from diagram.test_page import whole
from viscircuits.diagram.extended import diagram
from viscircuits.target import Target

FRAMES = 40

LOOP = """
async (frames) => {
  const svg = document.querySelector(".picture > svg"), slider = document.querySelector('[name="feature"]');
  const { x, y, width, height } = svg.getBoundingClientRect();
  const middle = { clientX: x + width / 2, clientY: y + height / 2, bubbles: true, cancelable: true };
  for (let i = 0; i < frames; i++) {
    ACT
    await new Promise(requestAnimationFrame);
  }
}
"""
ACTS = {
    "zoom": 'svg.dispatchEvent(new WheelEvent("wheel", { ...middle, deltaY: i % 20 < 10 ? -60 : 60 }));',
    "size": 'slider.value = 1 + (i % 20) / 15; slider.dispatchEvent(new Event("input"));',
}


@pytest.fixture
def large(visit, tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 12, 3), nn.Conv2d(12, 11, 3), nn.Conv2d(11, 11, 3), nn.Conv2d(11, 2, 3))
    with torch.no_grad():
        drawn = diagram(whole(network.eval(), Target("3", 1), (3, 24, 24)), pictures="none", most=300)
    assert len(drawn.content.edges) == 300
    text = drawn.html()
    assert len(text) < 8_000_000
    (tmp_path / "circuit.html").write_text(text)
    page = visit(tmp_path / "circuit.html")
    page.set_viewport_size({"width": 1280, "height": 800})
    return page


@pytest.mark.parametrize(("act", "most"), [("zoom", 10), ("size", 1000)])
def test_a_frame_writes_little(large, act, most):
    """For zoom the view and its scale; for another size each of 300 kernels, its line twice, and the filters."""
    large.evaluate(
        """() => { window.writes = 0; new MutationObserver((all) => (window.writes += all.length))
          .observe(document.body, { attributes: true, childList: true, subtree: true }); }"""
    )
    large.evaluate(LOOP.replace("ACT", ACTS[act]), FRAMES)
    large.wait_for_timeout(50)  # the last frame's
    assert FRAMES / 2 < large.evaluate("window.writes") <= most * (FRAMES + 1)


@pytest.mark.slow
@pytest.mark.parametrize("act", ACTS)
def test_a_frame_takes_little_script(large, act):
    session = large.context.new_cdp_session(large)
    session.send("Performance.enable")

    def script() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(1000 * metric["value"] for metric in metrics if metric["name"] == "ScriptDuration")

    loop = LOOP.replace("ACT", ACTS[act])
    large.evaluate(loop, 5)  # compiled and measured once
    before = script()
    large.evaluate(loop, FRAMES)
    assert (script() - before) / FRAMES < 4 * 2  # 4 ms where the processor is ours alone
