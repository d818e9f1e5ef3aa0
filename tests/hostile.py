"""Files of a study, one for each reader, and seeded ways to damage them."""

import io
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import safetensors.torch
import torch
from torch import nn

import viscircuits as vc
from viscircuits import store
from viscircuits.activations.top import TopActivations, top_activations
from viscircuits.circuit.compensation import Scales
from viscircuits.evaluate.sweep import Sweep, sweep
from viscircuits.evaluate.table import read_table
from viscircuits.model.fingerprint import fingerprint
from viscircuits.optvis.cache import Cache
from viscircuits.optvis.rendering import Picture
from viscircuits.probes.axis import Axis
from viscircuits.probes.patterns import Arc
from viscircuits.probes.surface import Surface
from viscircuits.saliency.gates import ladder
from viscircuits.saliency.gates.training import Standing
from viscircuits.store.tensors import HEADER
from viscircuits.study import measurements
from viscircuits.study.findings import Findings
from viscircuits.study.folder import Study
from viscircuits.study.spec import Pictures, Spec
from viscircuits.subcircuits.algebra import Overlaps, overlaps
from viscircuits.subcircuits.known import Known
from viscircuits.subcircuits.polysemantic import Clusters, Polysemantic


@dataclass(frozen=True)
class Reader:
    """A kind of file.

    Args:
        path: a sound one.
        read: reads a file in its place; its result as something that can be compared.
        sealed: whether it holds a digest.
    """

    path: Path
    read: Callable[[Path], Any]
    sealed: bool = True

    @property
    def sound(self) -> bytes:
        return self.path.read_bytes()

    def again(self, content: bytes, folder: Path) -> Any:
        """What is read of another content, under the file's own name."""
        path = folder / self.path.name
        path.write_bytes(content)
        return self.read(path)


ASKED = {"model": "shapesnet", "fingerprint": "0", "targets": ["a:1", "b:2"]}


def readers(folder: Path, model: nn.Module, halves: tuple[vc.ImageSet, vc.ImageSet]) -> dict[str, Reader]:
    """One of each, from a small study of the built-in network."""
    target = vc.Target("features.3", 7)
    circuit = vc.find(model, target, halves[0], criterion="magnitude", density=0.1)
    scaled = Scales(circuit.mask, {n: k.float() for n, k in circuit.mask.kept.items()}, 12)
    top = top_activations(model, ["features.3"], halves[0], 4)["features.3"]
    study = Study.create(folder / "study", _spec(model, halves))
    sweep(Sweep(model, [target], *halves, ["magnitude"], [0.5, 0.1]), study.measurements_path)
    Findings.create(folder / "found", "compare", "comparison", ASKED)
    files = {
        name: folder / f"{name}.safetensors"
        for name in ("circuit", "compensated", "rescaled", "scores", "overlaps", "surface", "top", "polysemantic")
    }
    circuit.save(files["circuit"])
    circuit.compensated(halves[0]).save(files["compensated"])
    replace(circuit, compensation=scaled).save(files["rescaled"])
    vc.score(model, target, halves[0], "magnitude").save(files["scores"])
    overlaps({"a": circuit.mask, "b": ~circuit.mask}).save(files["overlaps"])
    axes = (Axis("radius", (0.2, 0.4, 0.6)), Axis("angle", (0.0, 90.0, 180.0, 270.0), 360.0))
    Surface(str(target), Arc(), axes, torch.rand(3, 4), 0.25).save(files["surface"])
    top.save(files["top"])
    labels = torch.tensor([0, 0, 1, 1])
    clusters = (Clusters(1, labels, 0.5), *(Clusters(c, labels * 0 - 1, 0.0) for c in range(top.n_channels) if c != 1))
    Polysemantic(top, clusters, 2).save(files["polysemantic"])
    known = Known("recipe", folder / "known.json")
    known.add({"a": 0.5, "b": float("nan"), "c": -1.0})
    known.save()
    Cache(folder).write(Picture(torch.rand(3, 4, 4), "features.3:7", 1.5, 3), "one")
    picture = next(f for f in folder.glob("*.safetensors") if f not in files.values())
    masks = [torch.tensor([True, True, True, False]), torch.tensor([True, False, False, False])]
    state = Standing(torch.rand(4), masks[1], 5)
    ladder._save(folder / "training.safetensors", state, masks, [0.9, 0.5])

    def tensors(path: Path) -> Any:
        store.read_tensors(path)

    def saved(load: Callable[[Path], Any]) -> Callable[[Path], Any]:
        def read(path: Path) -> bytes:
            load(path).save(folder / "again")
            return (folder / "again").read_bytes()

        return read

    def training(path: Path) -> Any:
        state = Standing(torch.zeros(4), torch.ones(4, dtype=torch.bool))
        found = ladder._load(path, state, [3, 1])
        return [t.tolist() for t in (*found[0], state.logits, state.mean, state.square)], found[1], state.step

    def cached(path: Path) -> Any:
        found = Cache(path.parent).read("one")
        return None if found is None else (found.image.tolist(), *found[1:])

    def numbers(path: Path) -> Any:
        found = Known("recipe", path)
        return [repr(found[n]) for n in sorted(found._numbers)]

    def measured(path: Path) -> Any:
        table = Study(path.parent, study.header).measurements()
        return table.drop("seconds").rows_by_key("target", named=True)

    def findings(path: Path) -> Any:
        within = path.parent / "found" / "findings" / "compare"
        within.mkdir(parents=True, exist_ok=True)
        (within / path.name).write_bytes(path.read_bytes())
        return Findings.create(path.parent / "found", "compare", "comparison", ASKED).asked

    def on_model(path: Path) -> vc.Circuit:
        return vc.Circuit.load(path, model)

    return {
        "study": Reader(study.path / "study.json", lambda path: Study.open(path.parent).header, False),
        "table": Reader(study.measurements_path, lambda path: read_table(path).rows(named=True)),
        "measurements": Reader(study.measurements_path, measured),
        "findings": Reader(folder / "found/findings/compare/findings.json", findings, False),
        "known": Reader(folder / "known.json", numbers),
        "picture": Reader(picture, cached),
        "training": Reader(folder / "training.safetensors", training),
        "circuit": Reader(files["circuit"], saved(on_model)),
        "compensated": Reader(files["compensated"], saved(on_model)),
        "rescaled": Reader(files["rescaled"], saved(on_model)),
        "scores": Reader(files["scores"], saved(vc.Scores.load)),
        "overlaps": Reader(files["overlaps"], saved(Overlaps.load)),
        "surface": Reader(files["surface"], saved(Surface.load)),
        "top": Reader(files["top"], saved(TopActivations.load)),
        "polysemantic": Reader(files["polysemantic"], saved(Polysemantic.load)),
        "tensors": Reader(files["scores"], tensors),
    }


def _spec(model: nn.Module, halves: tuple[vc.ImageSet, vc.ImageSet]) -> Spec:
    scoring, held_out = (Pictures.of(images, "here") for images in halves)
    return Spec(
        model="shapesnet", weights=None, fingerprint=fingerprint(model), input_shape=(3, 64, 64),
        targets=("features.3:7",), scoring=scoring, held_out=held_out, criteria=("magnitude",), densities=(0.5, 0.1),
    )  # fmt: skip


def older(path: Path) -> bytes:
    """The file as it was written before there were digests."""
    content = path.read_bytes()
    match path.suffix:
        case ".safetensors":
            return with_header(content, {k: v for k, v in header_of(content).items() if k != "digest"})
        case ".parquet":
            return measurements._LINE.sub(b"", content)
        case _:
            value = json.loads(content)
            value.pop("digest", None)
            return json.dumps(value).encode()


def sealed(content: bytes, path: Path) -> bool:
    """Whether a mutated file still has the digest of the sound one."""
    if path.suffix == ".parquet":
        return bool(measurements._LINE.search(content))
    header = json.loads(path.read_bytes()) if path.suffix == ".json" else header_of(path.read_bytes())
    return header["digest"].encode() in content


def header_of(content: bytes) -> dict[str, Any]:
    """Our header of a safetensors file."""
    return json.loads(_parts(content)[0]["__metadata__"][HEADER])


def with_header(content: bytes, header: Any) -> bytes:
    """A safetensors file with another header of ours: a value, or a text as it is."""
    outer, data = _parts(content)
    outer["__metadata__"] = {HEADER: header if isinstance(header, str) else json.dumps(header)}
    return _whole(outer, data)


def _whole(outer: Any, data: bytes) -> bytes:
    text = json.dumps(outer).encode()
    return struct.pack("<Q", len(text)) + text + data


def _parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


NAN, INF = float("nan"), float("inf")
EXTREMES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63 - 1, 2**63, -(2**70), 10**400, 0.5, -0.0, 1e308, NAN, INF, -INF,
    "", ".", "..", "../../x", "/", "a\nb", "\x1b[31m", "\ud800", "\x00", "x" * 5000, [], {}, [[]], [None], {"": None},
)  # fmt: skip


def mutated(reader: Reader, content: bytes, random: Random) -> bytes:
    """The content with one thing, or a few, changed."""
    kinds = [_flipped, _flipped, _cut, _spliced]
    match reader.path.suffix:
        case ".safetensors":
            kinds += [_flipped_at_the_start, _other_header, _other_header, _other_outer, _other_tensor, _other_tensor]
        case ".parquet":
            kinds += [_flipped_at_the_end, _other_frame, _other_frame]
        case _:
            kinds += [_other_json, _other_json, _other_json]
    return random.choice(kinds)(content, random)


def _flipped(content: bytes, random: Random, least: int = 0, most: int | None = None) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 8))):
        changed[random.randrange(least, min(most or len(content), len(content)))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _flipped_at_the_start(content: bytes, random: Random) -> bytes:
    return _flipped(content, random, 0, 1500)


def _flipped_at_the_end(content: bytes, random: Random) -> bytes:
    return _flipped(content, random, max(0, len(content) - 3000))


def _cut(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content))]


def _spliced(content: bytes, random: Random) -> bytes:
    a, b, c = (random.randrange(len(content)) for _ in range(3))
    piece = random.choice((b"", content[min(a, b) :][:64], random.randbytes(9), b"[" * 100_000, b"\xff" * 8))
    return content[:c] + piece + content[c + random.choice((0, len(piece), 1)) :]


def _other_json(content: bytes, random: Random) -> bytes:
    return json.dumps(_changed(json.loads(content), random)).encode()


def _other_header(content: bytes, random: Random) -> bytes:
    deep = random.random() < 0.1
    return with_header(content, '{"kind": ' + "[" * 100_000 if deep else _changed(header_of(content), random))


def _other_outer(content: bytes, random: Random) -> bytes:
    outer, data = _parts(content)
    return _whole(_changed(outer, random), data)


def _other_tensor(content: bytes, random: Random) -> bytes:
    header = header_of(content)
    tensors = safetensors.torch.load(content)
    name = random.choice(sorted(tensors))
    value = tensors.pop(name)
    match random.randrange(7):
        case 0:
            pass
        case 1:
            tensors[random.choice(("other", "relevant/x", "shift/x", f"{name}.x"))] = value
        case 2:
            kinds = [
                t for t in (torch.int64, torch.float64, torch.bool, torch.uint8, torch.bfloat16) if t != value.dtype
            ]
            tensors[name] = value.to(random.choice(kinds))
        case 3:
            tensors[name] = random.choice((value.flatten(), value[None], value[:0], value[:-1], value[..., :1])).clone()
        case _:
            value = value.clone().contiguous()
            value.view(-1)[random.randrange(value.numel())] = random.choice((-1, 10**6, -(2**31), 0.5))
            if value.is_floating_point():
                value.view(-1)[0] = random.choice((float("nan"), float("inf"), 1e30))
            tensors[name] = value
    return safetensors.torch.save(tensors, {HEADER: json.dumps(header)})


def _other_frame(content: bytes, random: Random) -> bytes:
    frame = pl.read_parquet(io.BytesIO(content))
    name = random.choice(frame.columns)
    match random.randrange(5):
        case 0:
            frame = frame.drop(name)
        case 1:
            frame = frame.with_columns(pl.lit(random.choice((None, 1, "x", [1]))).alias(random.choice((name, "other"))))
        case 2:
            frame = pl.concat([frame, frame])
        case _:
            extreme = random.choice((None, -1, 2**40, float("nan"), float("inf"), -1e300))
            if frame[name].dtype == pl.String:
                extreme = random.choice((None, "", "../x", "\x1b[2J"))
            frame = frame.with_columns(pl.lit(extreme).cast(frame[name].dtype, strict=False).alias(name))
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def _changed(value: Any, random: Random) -> Any:
    """A JSON value with one node changed, left out, doubled or added."""
    value = json.loads(json.dumps(value))
    nodes = list(_nodes(value))
    if not nodes:
        return random.choice(EXTREMES)
    holder, key = random.choice(nodes)
    match random.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[random.choice(("surprise", "", "kind", "digest"))] = holder[key]
        case 1:
            holder.append(holder[key])
        case 2 if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] = random.choice(
                (-holder[key], holder[key] + 1, str(holder[key]), [holder[key]], holder[key] / 3)
            )
        case _:
            holder[key] = random.choice(EXTREMES)
    return value


def _nodes(value: Any) -> Any:
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _nodes(value[key])
