# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Classes that are balanced and a confidence that is calibrated, folded into the weights."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from training_frames import MEAN, PLAIN, STD, training_frame
from training_source import VARIANT

from alocc_ros.errors import ModelError
from alocc_ros.network.model import Alocc
from alocc_ros.training.calibration import (
    Calibration,
    best_confidence,
    best_offsets,
    calibration_error,
    drawn_voxels,
    fold,
    mean_iou,
)
from alocc_ros.training.forward import TrainingForward


def drawn(count: int = 40_000, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Four classes of which the last one, free, is frequent; true log probabilities as logits."""
    random = torch.Generator().manual_seed(seed)
    share = torch.tensor([0.02, 0.08, 0.2, 0.7])
    labels = torch.multinomial(share, count, True, generator=random)
    seen = torch.randn(count, 4, generator=random)
    seen[torch.arange(count), labels] += 2.0
    return torch.log_softmax(2 * seen + share.log(), 1), labels


def test_offsets_bring_a_class_back_and_find_the_best_iou():
    logits, labels = drawn()
    spoilt = logits + torch.tensor([-2.0, 1.3, 0.0, 0.0])
    offsets = best_offsets(spoilt, labels)
    assert offsets[0] > 1 and offsets[1] < 0 and offsets[3] == 0
    other, truth = drawn(seed=1)
    before, now = (
        mean_iou((other + torch.tensor([-2.0, 1.3, 0.0, 0.0]) + o).argmax(1), truth, 4)
        for o in (torch.zeros(4), offsets)
    )
    assert now > before + 0.05 and now >= mean_iou(other.argmax(1), truth, 4) - 0.005


def test_the_confidence_becomes_the_share_that_is_right():
    logits, labels = drawn()
    crooked = 3 * logits + 4
    assert calibration_error(crooked, labels) > 0.06
    scale, shift = best_confidence(crooked, labels)
    other, truth = drawn(seed=1)
    crooked = 3 * other + 4
    error, before = (calibration_error(x, truth) for x in (scale * crooked + shift, crooked))
    assert error < 0.6 * before
    with pytest.raises(ModelError, match="more often it is wrong"):
        best_confidence(-logits, logits.argmin(1).where(torch.arange(len(labels)) % 2 > 0, labels))


def test_what_is_folded_is_what_was_fitted():
    torch.manual_seed(0)
    network = Alocc(VARIANT).eval()
    frame = training_frame(VARIANT, 0)

    def said(n: Alocc):
        with torch.no_grad():
            prediction, _ = TrainingForward(n, MEAN, STD, "bgr")([frame], [None], PLAIN)
            known = torch.zeros(1, *frame.labels.shape, dtype=torch.bool)
            known[:, 12:28, 12:28, 2:14] = True  # the flow head knows of no edge there
            forward = TrainingForward(n, MEAN, STD, "bgr")
            # The match of maps is another one, so the one from before is taken for both.
            prediction = type(prediction)(
                **{**vars(prediction), "flow_cost": torch.ones(1, 24, 40, 40)}
            )
            return prediction.logits, forward.flow_logits(prediction, known)

    logits, flow = said(network)
    classes = logits.shape[1]
    # What the embeddings can make of a constant feature, so nothing is lost.
    with torch.no_grad():
        constant = network.alocc_head.class_embeddings() @ torch.randn(VARIANT.voxel_channels)
    calibration = Calibration(constant, scale=1.7, shift=0.0)
    folded = deepcopy(network)
    assert fold(folded, calibration) < 1e-4
    now, moved = said(folded)
    expected = calibration(logits.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(now, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    torch.testing.assert_close(moved, flow, rtol=1e-4, atol=1e-4)
    assert classes == len(constant)


def test_voxels_of_each_frame_are_drawn_and_unknown_ones_are_not():
    logits, labels = drawn(500)
    truth = labels.to(torch.uint8)
    truth[::2] = 255
    said, drawn_labels = drawn_voxels([(logits.T, truth)] * 2, 100, 255, np.random.default_rng(0))
    assert said.shape == (200, 4) and drawn_labels.max() < 4
