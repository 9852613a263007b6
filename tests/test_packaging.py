"""What is installed, what an import loads, and what the tree must not contain."""

import re
import subprocess
import sys
from importlib import metadata, resources

import pytest

import lateint
import lateint_kernels
import lateint_server

HEAVY = {
    "torch",
    "triton",
    "faiss",
    "transformers",
    "open_clip",
    "sklearn",
    "scipy",
    "pandas",
    "sqlglot",
    "pyarrow",
    "fastapi",
    "httpx",
    "PIL",
}


@pytest.mark.parametrize(
    "module",
    [
        "lateint",
        "lateint_kernels",
        "lateint.cli",
        "lateint.client",
        "lateint.metrics",
        "lateint_server.options",
        "preflmr",
    ],
)
def test_import_loads_nothing_heavy(module, tmp_path):
    program = f"import {module}, sys; print(*sorted({HEAVY} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_build_and_search_load_nothing_heavy(tmp_path):
    program = f"""
import sys
import numpy as np
sys.modules.update(dict.fromkeys({sorted(HEAVY)}))  # importing any of them now fails
import lateint
documents = np.random.default_rng(0).standard_normal((40, 12, 16)).astype("float32")
documents /= np.linalg.norm(documents, axis=2, keepdims=True)
assert lateint.Index.build(list(documents), progress=False).search(documents[3], k=1).ids[0] == 3
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_public_names():
    assert sorted(lateint.__all__) == [
        "Analyzer",
        "Codec",
        "Document",
        "Explanation",
        "FieldError",
        "FilterError",
        "FormatError",
        "Hit",
        "Hits",
        "Index",
        "LockedError",
        "LostError",
        "Ragged",
        "Shards",
        "UnknownIdError",
        "__version__",
        "search",
        "train_codec",
    ]
    assert set(lateint.__all__) <= set(dir(lateint))


def test_version():
    assert lateint.__version__ == metadata.version("lateint")


def test_the_citation_is_of_this_version(pytestconfig):
    assert f"\nversion: {lateint.__version__}\n" in (pytestconfig.rootpath / "CITATION.cff").read_text(encoding="utf-8")


def test_only_numpy_and_tqdm_are_required():
    required = [line for line in metadata.requires("lateint") or [] if "extra ==" not in line]
    assert sorted(re.match(r"[\w-]+", line)[0] for line in required) == ["numpy", "tqdm"]


def test_only_our_packages_are_installed():
    files = metadata.files("lateint") or []
    installed = any(file.parts[0].endswith(".dist-info") for file in files)  # else it is what a build left in the tree
    if not installed or any("__editable__" in str(file) for file in files):
        pytest.skip("an editable install lists no packages")
    tops = {file.parts[0] for file in files if file.parts[0] != ".." and not file.parts[0].endswith(".dist-info")}
    assert tops == {"lateint", "lateint_kernels", "lateint_ray", "lateint_server", "preflmr"}


@pytest.mark.parametrize("package", [lateint, lateint_kernels, lateint_server])
def test_types_are_shipped(package):
    assert (resources.files(package) / "py.typed").is_file()


def test_no_file_names_a_place_on_somebodys_machine(pytestconfig):
    root = pytestconfig.rootpath
    folders = [
        ".ci",
        "benchmarks",
        "csrc",
        "docs",
        "examples",
        "kernels",
        "lateint",
        "lateint_server",
        "preflmr",
        "tests",
    ]
    files = [file for file in root.iterdir() if file.is_file() and file.name != ".git"]
    files += [file for folder in folders for file in (root / folder).rglob("*") if file.is_file()]
    texts = {".md", ".py", ".pyi", ".toml", ".json", ".cpp", ".hpp", ".svg", ".tsv", ".txt", ".yml", ""}
    place = re.compile("/(" + "|".join(["work", "root", "home", "tmp", "opt", "Users"]) + r")/\w")
    found = [
        f"{file.relative_to(root)}: {match[0]}"
        for file in files
        if file.suffix in texts and (match := place.search(file.read_text(encoding="utf-8", errors="replace")))
    ]
    assert found == []
