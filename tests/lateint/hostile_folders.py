"""Folders as a stranger might make them: copies in which a file is cut, changed, missing, or another's."""

import random
import shutil


def variants(folder, room, count):
    """The first is as it was. Each takes the place of the one before."""
    rng = random.Random(0)
    names = sorted(path.name for path in folder.iterdir() if path.name != "embeddings.npy")
    for number in range(count):
        target = room / "variant"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
        if number:
            _change(rng, target, names)
        yield target


def _change(rng, folder, names):
    path = folder / rng.choice(names)
    data = bytearray(path.read_bytes())
    kind = rng.randrange(6)
    if kind == 0 or not data:
        path.unlink()
    elif kind == 1:
        path.write_bytes(data[: rng.randrange(len(data))])
    elif kind == 2:
        path.write_bytes((folder / rng.choice(names)).read_bytes())
    else:
        for _ in range(rng.choice([1, 2, 8])):
            # beginnings say what follows, and digits say how much
            place = rng.randrange(min(len(data), 256) if rng.random() < 0.7 else len(data))
            digit = 48 <= data[place] < 58
            data[place] = rng.choice(b"0123456789") if digit and kind < 5 else rng.randrange(256)
        path.write_bytes(data)
