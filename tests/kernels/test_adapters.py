"""What adapters need no other library for; test_adapters_*.py compare them with the real ones where these are."""

import importlib
import subprocess
import sys
import types

import pytest

from lateint_kernels.adapters import switch
from lateint_kernels.adapters.switch import Switch, needed

ADAPTERS = {"pylate": "pylate", "sentence_transformers": "sentence_transformers", "colpali": "colpali_engine"}


def test_switch_replaces_and_puts_back():
    module = types.ModuleType("module")
    module.first, module.second = 1, 2
    switch = Switch({(module, "first"): 10, (module, "second"): 20})
    assert (module.first, module.second) == (10, 20)
    switch.undo()
    switch.undo()
    assert (module.first, module.second) == (1, 2)
    with pytest.raises(ZeroDivisionError), Switch({(module, "first"): 10}):
        raise ZeroDivisionError
    assert module.first == 1


def test_switches_nest():
    module = types.ModuleType("module")
    module.first = 1
    with Switch({(module, "first"): 2}), Switch({(module, "first"): 3}):
        assert module.first == 3
    assert module.first == 1


def test_an_unknown_version_is_refused_and_left_alone():
    module = types.ModuleType("module")
    module.first = 1
    with pytest.raises(RuntimeError, match="module has no second: this adapter does not know its version"):
        Switch({(module, "first"): 2, (module, "second"): 3})
    assert module.first == 1


@pytest.mark.parametrize("name", ADAPTERS)
def test_importing_an_adapter_imports_nothing_else(name):
    program = f"""
import sys
import lateint_kernels.adapters.{name}
print(*sorted({{"torch", "transformers", *{list(ADAPTERS.values())}}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("name", "package", "wanted"),
    [
        ("pylate", "pylate", "pylate>=1.6"),
        ("sentence_transformers", "sentence_transformers", "sentence-transformers>=6.2"),
        ("colpali", "colpali_engine", "colpali-engine>=0.3.17"),
    ],
)
def test_a_missing_library_is_named_with_its_command(monkeypatch, name, package, wanted):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(switch, "distributions", lambda name: [])
    adapter = importlib.import_module(f"lateint_kernels.adapters.{name}")
    with pytest.raises(ModuleNotFoundError) as caught:
        adapter.patch()
    assert str(caught.value) == f"this adapter needs {wanted}, found none: pip install '{wanted}'"


def test_an_older_library_is_named_and_what_a_library_lacks_is_its_own_matter(monkeypatch):
    monkeypatch.setitem(sys.modules, "a_library", types.ModuleType("a_library"))
    monkeypatch.setattr(switch, "distributions", lambda name: [types.SimpleNamespace(version="1.4.0")])
    told = r"^this adapter needs a-library>=1\.5, found 1\.4\.0: pip install 'a-library>=1\.5'$"
    with pytest.raises(ImportError, match=told), needed("a-library", "1.5"):
        from a_library import part  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match="No module named 'what_it_imports'"), needed("a-library", "1.5"):
        import what_it_imports  # noqa: F401


@pytest.fixture
def stand_ins(monkeypatch):
    """As much of PyLate and sentence-transformers as is called for every batch."""

    def package(path, **members):
        for depth in range(1, path.count(".") + 2):
            name = ".".join(path.split(".")[:depth])
            if name not in sys.modules:
                monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
            parent, _, last = name.rpartition(".")
            if parent:
                monkeypatch.setattr(sys.modules[parent], last, sys.modules[name], raising=False)
        for name, member in members.items():
            monkeypatch.setattr(sys.modules[path], name, member, raising=False)

    for name in (*ADAPTERS.values(), "pylate.utils", "sentence_transformers.util"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    package("pylate.utils.tensor", convert_to_tensor=lambda values: values)
    package(
        "sentence_transformers.util.similarity",
        _fill_empty_document_scores=lambda scores, empty: scores.masked_fill(empty, -1e9),
    )


@pytest.mark.parametrize("name", ["pylate", "sentence_transformers", "colpali"])
def test_compiled_without_a_graph_break(stand_ins, name):
    torch = pytest.importorskip("torch")
    from lateint_kernels.adapters import colpali, pylate, sentence_transformers

    queries, documents = torch.randn(2, 3, 16), torch.randn(4, 5, 16)
    mask = torch.arange(5).expand(4, 5) < torch.tensor([5, 1, 3, 2])[:, None]
    score = {
        "pylate": lambda q, d: pylate.colbert_scores(q, d, documents_mask=mask),
        "sentence_transformers": lambda q, d: sentence_transformers._score_documents(q, d, None, mask),
        "colpali": colpali.maxsim_inbatch,
    }[name]
    torch.compiler.reset()
    compiled = torch.compile(score, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(queries, documents), score(queries, documents))
