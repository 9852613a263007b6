"""An index from a stranger: whatever its bytes are, it is refused in a sentence, or searches end, or `verify` tells."""

import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from lateint import FormatError, Index

GOLDEN = Path(__file__).parents[1] / "golden" / "index-v2"


def mutated(data, rng):
    """Bytes with a few of them changed, some cut off, or a piece put elsewhere."""
    data = bytearray(data)
    kind = rng.integers(4)
    if kind == 0:
        return bytes(data[: int(rng.integers(0, len(data)))])
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(data)))
        if kind == 1:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            data[at : at + 8] = int(rng.choice([0, -1, 1 << 62, -(1 << 62)])).to_bytes(8, "little", signed=True)
        else:
            other = int(rng.integers(len(data)))
            data[at : at + 8] = data[other : other + 8]
    return bytes(data)


def with_right_checksums(folder):
    """As a stranger would write it who means it."""
    manifest = json.loads((folder / "index.json").read_text())
    for name, entry in manifest["files"].items():
        data = (folder / name).read_bytes()
        for image in entry.get("arrays", {"": entry}).values():
            offset = image.get("offset", 0)
            image["crc32"] = zlib.crc32(data[offset : offset + image["bytes"]])
    (folder / "index.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("honest", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_any_file_may_be_anything(tmp_path, seed, honest):
    rng = np.random.default_rng(seed)
    query = rng.standard_normal((3, 16)).astype(np.float32)
    files = sorted(path.relative_to(GOLDEN) for path in GOLDEN.rglob("*") if path.is_file())
    for number in range(25):
        folder = tmp_path / str(number)
        shutil.copytree(GOLDEN, folder)
        name = files[int(rng.integers(len(files)))]
        before = (folder / name).read_bytes()
        after = mutated(before, rng)
        (folder / name).write_bytes(after)
        if not honest and name.name != "index.json":
            with_right_checksums(folder)
        try:
            index = Index.open(folder)
            index.search(query, 5)
            index.search(query, 200, exhaustive=True)
            index.search(query, 5, subset=index.ids[:3])
            index.reconstruct(index.ids[0])
        except FormatError as error:
            assert str(folder) in str(error) or "damaged" in str(error)
        except KeyError:
            pass  # an id that is another one now
        if honest and after != before and name.name != "index.json":
            assert Index.verify(folder).problems != [] or name.suffix == ".seg", f"{name} was changed"
        shutil.rmtree(folder)
