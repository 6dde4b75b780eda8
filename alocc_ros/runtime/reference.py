# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A network in which every operator is its obvious form: the definition, slowly."""

from __future__ import annotations

from alocc_ros.network.model import Alocc
from alocc_ros.ops.argmax import occupancy_argmax_reference
from alocc_ros.ops.correlation import correlation_reference
from alocc_ros.ops.cost_volume import cost_volume_reference
from alocc_ros.ops.intra_object import intra_object_reference
from alocc_ros.ops.lift import lift_reference
from alocc_ros.runtime.prepare import shallow_copy


def with_reference_operators(network: Alocc) -> Alocc:
    """The network as it was trained, not prepared, with the operators' references."""
    reference = shallow_copy(network).eval().requires_grad_(False)
    reference.lift.operator = lift_reference
    reference.lift.intra_object.operator = intra_object_reference
    reference.operator = occupancy_argmax_reference
    if network.variant.stereo:
        reference.stereo.operator = cost_volume_reference
    if network.variant.flow:
        reference.flow_match.operator = correlation_reference
    return reference
