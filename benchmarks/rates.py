"""The two prices in `viscircuits.model.small.cost`: multiplications and bytes a core manages in a second.

    uv run python benchmarks/rates.py

Runs whole networks, random weights, 8 pictures at 224, one thread, and fits their CPU times by the counted work.
"""

import time

import numpy as np
import torch
import torchvision

from viscircuits.model.small.cost import Work

NETWORKS = (
    "alexnet", "squeezenet1_1", "resnet18", "mobilenet_v3_small", "shufflenet_v2_x1_0", "densenet121", "vgg11",
    "resnet50",
)  # fmt: skip


@torch.no_grad()
def measured(name: str) -> tuple[int, int, float]:
    """Multiplications, bytes, and the shortest of three CPU times."""
    model = getattr(torchvision.models, name)(weights=None).eval()
    images = torch.randn(8, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    with Work() as work:
        model(images)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        model(images)
        seconds.append(time.process_time() - start)
    return work.multiplications, work.bytes, min(seconds)


def main() -> None:
    torch.set_num_threads(1)
    rows = [measured(name) for name in NETWORKS]
    shares = np.array([[multiplications / t, size / t] for multiplications, size, t in rows])
    prices, *_ = np.linalg.lstsq(shares, np.ones(len(rows)), rcond=None)
    print(f"{1e-9 / prices[0]:.0f} G multiplications a second, {1e-9 / prices[1]:.1f} GB a second")
    print("| network | G multiplications | MB | CPU s | fitted over measured |\n|---|---|---|---|---|")
    for name, (multiplications, size, t), fit in zip(NETWORKS, rows, shares @ prices, strict=True):
        print(f"| {name} | {multiplications / 1e9:.2f} | {size / 1e6:.0f} | {t:.3f} | {fit:.2f} |")


if __name__ == "__main__":
    main()
