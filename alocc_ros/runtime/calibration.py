# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What a user's own images said of a network's activations, for int8 on CPUs and in TensorRT.

It lies in the cache under the digest of the weights, as they were loaded: what is prepared on a GPU
may differ from it in the last bit. What is built of it can be built again, the images can not be
seen again: so it depends on no version of anything but the form of the graph, which it names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np

from alocc_ros.errors import DeviceError, ParameterError
from alocc_ros.network.model import Alocc
from alocc_ros.runtime.cache import RANGES, Cache, weights_digest
from alocc_ros.runtime.engines import graph_of, identity_of
from alocc_ros.runtime.export import segments, to_onnx
from alocc_ros.runtime.prepare import prepare
from alocc_ros.runtime.quantisation import (
    CPU,
    UNCALIBRATED,
    Quantisation,
    Ranges,
    check_packages,
    observe,
    quantised,
)


def calibrate(
    network: Alocc,
    images: Iterable[np.ndarray],  # [N, 3, H, W] float32 as preprocessed, a set each
    cache: Cache | None = None,
) -> Ranges:
    """Note and keep what the activations of a network's image part are, and what a CPU runs of it.

    Args:
        network: as it was loaded, on a CPU.
        images: what the cameras see, some tens of sets of as many images each; all rigs and
            weathers that matter.
        cache: where to keep it; None: this user's.

    Raises:
        ParameterError: onnxruntime, onnx or onnxscript are missing, or there is no image.
    """
    check_packages()
    sets = iter(images)
    if (first := next(sets, None)) is None:
        raise ParameterError("there is not one set of images to calibrate with")
    core, cache = prepare(network), cache or Cache()
    image = segments(core, len(first))[0]
    plain = to_onnx(image)
    found = observe(plain, chain([first], sets))
    cache.put(RANGES, _key(network), found.dumped())
    # So that no start has to export the network once more.
    how = Quantisation(found, CPU)
    segment = replace(image, quantisation=how)
    graph_of(segment, identity_of(network), cache, partial(quantised, plain, how))
    return found


def find_ranges(network: Alocc, cache: Cache | None = None) -> Ranges:
    """What ``calibrate`` kept, for any number of cameras.

    Args:
        network: as it was loaded, wherever it lies.
        cache: where it was kept; None: this user's.

    Raises:
        DeviceError: these weights were never calibrated here, or what was kept is damaged.
        ParameterError: a package that int8 needs is missing.
    """
    check_packages()
    data = (cache or Cache()).get(RANGES, _key(network))
    if data is None:
        raise DeviceError(UNCALIBRATED)
    return Ranges.loaded(data)


def _key(network: Alocc) -> dict[str, str]:
    return {
        "weights": weights_digest(network),
        "size": str(list(network.variant.input_size)),
        "format": "1",
    }
