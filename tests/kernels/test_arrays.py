import numpy as np
import pytest

from lateint_kernels import BFLOAT16, as_array, to_bfloat16, to_float32

NUMBERS = np.array([[0.5, -2.0, 3.0], [1e-3, 65280.0, -0.0]], dtype=np.float32)


class OnlyDlpack:
    """An array of some library that speaks DLPack and nothing else."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **keywords):
        return self.array.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_fitting_arrays_are_not_copied(dtype):
    array = NUMBERS.astype(dtype)
    result = as_array(array, "x")
    assert np.shares_memory(result, array)
    assert result.dtype == dtype


def test_float64_becomes_float32():
    result = as_array(NUMBERS.astype(np.float64), "x")
    assert result.dtype == np.float32
    assert np.array_equal(result, NUMBERS)


def test_other_layouts_become_contiguous():
    wide = np.repeat(NUMBERS, 2, axis=1)
    for array in (wide[:, ::2], np.asfortranarray(NUMBERS), NUMBERS.astype(">f4")):
        result = as_array(array, "x")
        assert result.flags.c_contiguous
        assert result.flags.aligned
        assert result.dtype == np.dtype("=f4")
        assert np.array_equal(result, NUMBERS)


def test_unaligned_memory_is_copied():
    raw = np.zeros(NUMBERS.nbytes + 1, np.uint8)
    array = raw[1:].view(np.float32).reshape(NUMBERS.shape)
    array[:] = NUMBERS
    assert as_array(array, "x").ctypes.data % 4 == 0


def test_memory_maps_are_not_read(tmp_path):
    np.save(tmp_path / "x.npy", NUMBERS)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert np.shares_memory(as_array(mapped, "x"), mapped)


def test_bfloat16_slices_and_saves(tmp_path):
    array = to_bfloat16(NUMBERS)
    assert array.dtype == BFLOAT16
    np.save(tmp_path / "x.npy", array)
    assert np.array_equal(to_float32(np.load(tmp_path / "x.npy", mmap_mode="r")[1:]), to_float32(array)[1:])


def test_bfloat16_rounds_to_nearest_even():
    torch = pytest.importorskip("torch")
    numbers = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32).view(np.float32)
    expected = torch.from_numpy(numbers).bfloat16().view(torch.int16).numpy().view(np.uint16)
    finite = np.isfinite(numbers)
    assert np.array_equal(to_bfloat16(numbers)["bfloat16"][finite], expected[finite])
    assert np.array_equal(np.isnan(to_float32(to_bfloat16(numbers))), np.isnan(numbers))


def test_int8_only_where_welcome():
    numbers = np.arange(-3, 3, dtype=np.int8)
    assert np.shares_memory(as_array(numbers, "codes", int8=True), numbers)
    with pytest.raises(TypeError, match="queries must be float32, float16, bfloat16 or float64, got int8"):
        as_array(numbers, "queries")


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, bool, complex, "U3", object, np.longdouble])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(TypeError, match=r"tokens must be float32, float16, bfloat16 or float64 or int8, got"):
        as_array(np.zeros(3).astype(dtype), "tokens", int8=True)


@pytest.mark.parametrize("numbers", [[[0.5, 2.0], [1.0, 3.0]], ((0.5, 2.0), (1, 3))])
def test_nested_lists(numbers):
    result = as_array(numbers, "x")
    assert result.dtype == np.float32
    assert result.tolist() == [[0.5, 2.0], [1.0, 3.0]]


def test_lists_of_arrays():
    assert np.array_equal(as_array([NUMBERS, NUMBERS], "x"), np.stack([NUMBERS, NUMBERS]))


@pytest.mark.parametrize("numbers", [[[1.0], [1.0, 2.0]], [np.zeros(2), np.zeros(3)]])
def test_ragged_lists_are_refused(numbers):
    with pytest.raises(ValueError, match="x must have rows of one shape and dtype"):
        as_array(numbers, "x")


@pytest.mark.parametrize("thing", [None, 3.5, "text", object(), {"a": 1}])
def test_things_that_are_no_arrays(thing):
    with pytest.raises(TypeError, match="x must be an array, got"):
        as_array(thing, "x")


def test_dlpack():
    assert np.array_equal(as_array(OnlyDlpack(NUMBERS), "x"), NUMBERS)


def test_an_exporter_that_fails():
    class Broken:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("on another planet")

    with pytest.raises(TypeError, match="x cannot be read as an array: on another planet"):
        as_array(Broken(), "x")


def test_ml_dtypes():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    result = as_array(NUMBERS.astype(ml_dtypes.bfloat16), "x")
    assert np.array_equal(to_float32(result), to_float32(to_bfloat16(NUMBERS)))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "int8"])
@pytest.mark.parametrize("grad", [False, True])
def test_torch(dtype, grad):
    torch = pytest.importorskip("torch")
    tensor = torch.tensor([[1.0, -2.0], [3.0, 0.5]]).to(getattr(torch, dtype))
    if grad and dtype != "int8":
        tensor.requires_grad_()
    result = as_array(tensor, "x", int8=True)
    assert np.array_equal(to_float32(result), tensor.detach().float().numpy())
    if dtype != "float64":
        assert result.ctypes.data == tensor.data_ptr()


def test_torch_layouts():
    torch = pytest.importorskip("torch")
    tensor = torch.arange(12.0).reshape(3, 4).bfloat16()
    for other in (tensor.T, tensor[:, ::2], torch.nn.Parameter(tensor)):
        assert np.array_equal(to_float32(as_array(other, "x")), other.detach().float().numpy())


def test_torch_refusals():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"x must be float32, float16, bfloat16 or float64, got torch.int64"):
        as_array(torch.arange(3), "x")
    with pytest.raises(TypeError, match=r"x must be a dense tensor, got torch\.sparse_coo"):
        as_array(torch.eye(2).to_sparse(), "x")
    with pytest.raises(TypeError, match="x must hold numbers, got a tensor on meta"):
        as_array(torch.empty(2, device="meta"), "x")


def test_a_mask_is_not_lost():
    hidden = np.ma.masked_greater(NUMBERS, 2.5)
    for given, name in ((hidden, "x"), ([hidden[0], NUMBERS[1]], r"x\[0\]")):
        with pytest.raises(TypeError, match=f"{name}.* must not be masked, got a masked array that masks"):
            as_array(given, "x")
    assert np.array_equal(as_array(np.ma.array(NUMBERS), "x"), NUMBERS)  # there is none to be lost


def test_nested_tensors_are_refused():
    torch = pytest.importorskip("torch")
    nested = torch.nested.as_nested_tensor([torch.ones(2, 3), torch.ones(1, 3)], layout=torch.jagged)
    with pytest.raises(TypeError, match="x must be a dense tensor, got a nested one"):
        as_array(nested, "x")
