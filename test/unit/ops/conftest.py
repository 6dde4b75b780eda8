# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The forms that an operator can take on a CPU; ``ops/library.py`` says which is taken when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from operators import differentiable

from alocc_ros.ops import native

FORMS = ("CPU kernel", "no compiler", "gradient")


@pytest.fixture(params=FORMS[:2])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """With the C kernels and without them; nobody wants a gradient."""
    _use(request.param, monkeypatch)
    with torch.no_grad():
        yield request.param


@pytest.fixture(params=FORMS)
def form(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Callable[..., Any]], Callable[..., Any]]]:
    """Turns an operator into one that takes each of its forms in turn; also the general one
    because a gradient is wanted, which is how the operators get there that need no compiler.
    """
    _use(request.param, monkeypatch)
    with torch.no_grad():
        yield differentiable if request.param == "gradient" else lambda operator: operator


@pytest.fixture
def compiled() -> Iterator[None]:
    """The C kernels or nothing."""
    if native.library() is None:
        pytest.skip("no C compiler here")
    with torch.no_grad():
        yield


def _use(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "no compiler":
        monkeypatch.setattr(native, "library", lambda: None)
    elif name == "CPU kernel" and native.library() is None:
        pytest.skip("no C compiler here")
