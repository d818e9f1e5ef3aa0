"""The triton kernel against the loop for CPUs: on a GPU where there is one, else in triton's interpreter.

The interpreter has to be chosen before triton is imported, so a process of its own computes. It accepts more than the
compiler does; therefore every kind of kernel is compiled too, which needs no GPU.
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context

import pytest
import torch
from test_fused import GEOMETRIES

from viscircuits.saliency.engine.fused import weighted_absolute_maps

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="no triton here")

LAST, FIRST = torch.channels_last, torch.contiguous_format
SMALL = (*GEOMETRIES[:7], (2, 9, (2, 11), (4, 4), (1, 2), (1, 1), (7, 23)))
WIDE = (35, 3, (3, 2), (2, 1), (1, 0), (1, 2), (6, 5))


def _start(interpreter: bool) -> None:
    from jaxtyping import install_import_hook

    if interpreter:
        os.environ["TRITON_INTERPRET"] = "1"
    install_import_hook("viscircuits", "beartype.beartype")


def _run(x, weight, weightings, *geometry):
    from viscircuits.saliency.engine import fused_triton

    device = "cpu" if "TRITON_INTERPRET" in os.environ else "cuda"
    weightings = [m.to(device) for m in weightings]
    return fused_triton.weighted_absolute_maps(x.to(device), weight.to(device), weightings, *geometry).cpu()


class _Hopper:
    """A driver of a GPU that is not there: triton compiles for it and prepares a launch."""

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return device


def _compile(*case):
    """Goes the whole way up to the launch; returns what the assembler is given."""
    from triton.runtime import driver

    from viscircuits.saliency.engine import fused_triton

    class Prepare:
        def __getitem__(self, grid):
            return lambda *arguments, **options: built.append(kernel.warmup(*arguments, grid=grid, **options))

    driver.set_active(_Hopper())
    kernel, built = fused_triton.compiled(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_triton, "compiled", Prepare)
        fused_triton.weighted_absolute_maps(*case)
    return [one.asm["ptx"] for one in built]


def _pool(interpreter):
    return ProcessPoolExecutor(1, get_context("spawn"), _start, (interpreter,))


@pytest.fixture(scope="module")
def sums():
    with _pool(not torch.cuda.is_available()) as pool:
        yield lambda *arguments: pool.submit(_run, *arguments).result()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        with _pool(interpreter=False) as pool:
            yield lambda *arguments: pool.submit(_compile, *arguments).result()


def _case(geometry, dtype, targets, layout=FIRST):
    channels, filters, kernel, stride, padding, dilation, size = geometry
    x, weight = torch.randn(2, channels, *size, dtype=dtype), torch.randn(filters, channels, *kernel, dtype=dtype)
    output = torch.conv2d(x, weight, None, stride, padding, dilation)
    m = [torch.randn_like(output).contiguous(memory_format=layout) for _ in range(targets)]
    return x.contiguous(memory_format=layout), weight, m, stride, padding, dilation


@pytest.mark.parametrize("layout", [LAST, FIRST])
@pytest.mark.parametrize(
    ("targets", "dtype", "tolerance"),
    [(1, torch.float64, 1e-12), (3, torch.float64, 1e-12), (9, torch.float64, 1e-12), (1, torch.float32, 1e-6),
     (3, torch.float32, 1e-6)],
)  # fmt: skip
@pytest.mark.parametrize("geometry", [*SMALL[:5], WIDE], ids=str)
def test_equals_the_loop(sums, geometry, targets, dtype, tolerance, layout):
    case = _case(geometry, dtype, targets, layout)
    expected, got = weighted_absolute_maps(*case), sums(*case)
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    assert float((got - expected).abs().max()) <= tolerance * float(expected.max())


@pytest.mark.parametrize("geometry", SMALL[5:], ids=str)
def test_other_kernels(sums, geometry):
    case = _case(geometry, torch.float64, 1)
    assert torch.allclose(sums(*case), weighted_absolute_maps(*case), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_summed_in_float32(sums, dtype):
    x, weight, m, *geometry = _case(SMALL[0], torch.float32, 2)
    x, weight, m = x.to(dtype), weight.to(dtype), [one.to(dtype) for one in m]
    got = sums(x, weight, m, *geometry)
    expected = weighted_absolute_maps(x.double(), weight.double(), [one.double() for one in m], *geometry)
    assert got.dtype == torch.float32
    assert torch.allclose(got.double(), expected, rtol=1e-5)


def test_weightings_of_several_layouts_and_views(sums):
    x, weight, m, *geometry = _case(SMALL[0], torch.float64, 3)
    m = [m[0], m[1].contiguous(memory_format=LAST), m[2][:1, :1].expand_as(m[2])]
    x = torch.randn(2, 6, 9, 24, dtype=torch.float64)[:, ::2, :, 1:23:2]
    assert torch.allclose(sums(x, weight, m, *geometry), weighted_absolute_maps(x, weight, m, *geometry), rtol=1e-12)


def test_dead_filters_and_what_lies_beyond_the_picture_count_nothing(sums):
    x, weight, m, *geometry = _case(SMALL[0], torch.float64, 2)
    m[1][:, 2] = 0
    weight[3] = 0
    got = sums(x, weight, m, *geometry)
    assert not got[1, 2].any()
    assert not got[:, 3].any()
    assert got[0, 2].all()


def test_many_parts_and_repetition_change_no_bit(sums):
    x, weight, m = torch.randn(3, 2, 30, 31), torch.randn(3, 2, 3, 3), [torch.rand(3, 3, 30, 31)]
    first = sums(x, weight, m, (1, 1), (1, 1), (1, 1))
    assert torch.equal(first, sums(x, weight, m, (1, 1), (1, 1), (1, 1)))
    assert torch.allclose(first, weighted_absolute_maps(x, weight, m, (1, 1), (1, 1), (1, 1)), rtol=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="triton's assembler comes for Linux only")
@pytest.mark.parametrize("layout", [LAST, FIRST])
@pytest.mark.parametrize(
    ("dtype", "targets", "channels"),
    [(torch.float32, 1, 128), (torch.float32, 9, 64), (torch.float64, 2, 32), (torch.bfloat16, 1, 3)],
)
def test_compiles_for_a_gpu(compiled, layout, dtype, targets, channels):
    for ptx in compiled(*_case((channels, 9, (3, 3), (1, 1), (1, 1), (1, 1), (5, 6)), dtype, targets, layout)):
        assert f"fma.rn.f{64 if dtype == torch.float64 else 32}" in ptx
        assert ".atom" not in ptx
        assert "red.global" not in ptx
