"""Train the network that comes with the package, and print what became of it.

    python examples/train_shapesnet.py [where/to/write.safetensors]

Takes several minutes on two CPU cores. Ctrl-C leaves the old file as it was.
"""

import sys

from viscircuits.train.loop import Milestone
from viscircuits.train.penalties import conv_weights
from viscircuits.train.shapesnet import train_shapesnet


def show(report: Milestone) -> None:
    line = f"{report.step:6d} steps   loss {report.loss:.3f}   penalty {report.penalty:.3f}"
    print(f"{line}   accuracy {report.accuracy:.1%}", flush=True)


def main(out: str = "shapesnet.safetensors") -> None:
    trained = train_shapesnet(out=out, progress=show)
    print(f"\naccuracy on unseen pictures {trained.accuracy:.2%}, after {trained.seconds:.0f} s; weights in {out}\n")
    print(f"{'layer':<13}{'kernels':>9}{'not empty':>11}{'channels':>10}{'live':>6}")
    for layer, weight in conv_weights(trained.model).items():
        n_out, n_in = weight.shape[:2]
        print(f"{layer:<13}{n_out * n_in:>9}{trained.kernels[layer]:>11.1%}{n_out:>10}{trained.live[layer]:>6}")


if __name__ == "__main__":
    main(*sys.argv[1:])
