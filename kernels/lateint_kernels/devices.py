"""Names of devices that an index can be searched or built on."""

from lateint_kernels import backends


def check_device(device: str) -> None:
    """Raises what `engine` would raise for the device."""
    several = "," in device
    for one in device.split(","):
        _check_one(one, several)


def check_memory(device: str, memory: int | None) -> None:
    """Raises what `engine` would raise for the memory, as far as the index does not matter."""
    if device == "cpu" and memory is not None:
        raise ValueError("device_memory must be left out on the cpu, which maps the files of an index")


def _check_one(device: str, several: bool) -> None:
    if device == "cpu" and not several:
        return
    kind, _, number = device.partition(":")
    if kind != "cuda" and device != "torch:cpu":
        wanted = "several devices must all be cuda" if several else "device must be cpu or cuda"
        raise ValueError(f"{wanted}, got {device!r}")
    if not backends.has_torch():
        raise backends.BackendError(f"device {device} needs torch, which is not installed")
    if kind == "cuda":
        import torch

        count = torch.cuda.device_count()
        if not (number or "0").isdecimal() or int(number or "0") >= count:
            raise ValueError(f"device must be there, but torch finds {count} of CUDA, got {device!r}")
