"""Our scorer inside other libraries: one module for each, which imports it only when called.

Each offers that library's scoring functions, with its signatures and meaning, and ``patch()``, which makes the library
use them by itself until it is undone::

    from lateint_kernels.adapters import pylate

    with pylate.patch():
        ...  # PyLate's losses, evaluators and re-rankers score with lateint_kernels

    switch = pylate.patch()  # or for good, or until switch.undo()
"""
