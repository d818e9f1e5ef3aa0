"""The picture in the README: the circuit of one channel of the built-in network, from the pixels on."""

from pathlib import Path

import viscircuits as vc
from viscircuits.data.shapes import generate

model, prepare = vc.zoo.load("shapesnet")
drawn = generate(400, seed=2)
images = vc.ImageSet.from_tensors(prepare(drawn.images), drawn.labels.tolist())
scoring, held_out = images.split(0.5, seed=2)
target = vc.Target("features.6", channel=7)
scores = vc.score(model, target, scoring, criterion="snip")
circuit = vc.Circuit(model, target, scores.select(density=0.03))
picture = vc.diagram(circuit, scores=scores, images=held_out, prepare=prepare)
Path("docs/circuit.svg").write_text(picture.svg(), encoding="utf-8")
