# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The ALOcc network: six images, their cameras and a memory in, labels and flow out.

This file is the paper's figure 2; every step is one call. Module names are those of the official
state_dict. Modules keep no state between calls: the memory is an argument and a result.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alocc_ros.errors import ModelError, TemporalMemoryError
from alocc_ros.network.backbone import ResNet
from alocc_ros.network.cameras import CameraGeometry, depth_bins
from alocc_ros.network.depth import DepthNet
from alocc_ros.network.encoder import (
    Encoder,
    FlatBlock,
    FlatNeck,
    VoxelBlock,
    VoxelNeck,
    raise_height,
)
from alocc_ros.network.heads import AloccHead
from alocc_ros.network.lifting import RELEASED_INTER_INDEX_MAX, lift
from alocc_ros.network.memory import Memory
from alocc_ros.network.neck import ImageNeck
from alocc_ros.network.observe import observe
from alocc_ros.network.temporal import fuse_history
from alocc_ros.network.variants import Variant
from alocc_ros.ops.classify import labels, merged_conv
from alocc_ros.ops.conv import conv_bn
from alocc_ros.ops.cost_volume import cost_volume
from alocc_ros.ops.mode import fast


@dataclass(frozen=True)
class NetworkInput:
    """One frame.

    Attributes:
        images: [N, 3, H, W] float32, preprocessed (stream/images.py).
        cameras: geometry of the N cameras.
        previous_T_current: [4, 4] float64 metres, grid frame now -> at the memory's key frame.
        elapsed: seconds since that key frame; the weights know multiples of 0.5.
        glance_T_current: likewise, to the frame that ``memory.stereo`` and ``memory.flow_bev`` are
            of; None: they are the key frame's, as in training.
        alive: [N] bool; False: no image came, lift nothing from this camera.
        lidar_depth: [N, H, W] metres at network-input pixels, 0 where there is no return
            (the camera + LiDAR rows of the paper).
    """

    images: Tensor
    cameras: CameraGeometry
    previous_T_current: Tensor
    elapsed: float = 0.5
    glance_T_current: Tensor | None = None
    alive: Tensor | None = None
    lidar_depth: Tensor | None = None


@dataclass(frozen=True)
class NetworkOutput:
    """One frame's answer.

    Attributes:
        labels: [X, Y, Z] uint8, benchmark classes.
        logits: [X, Y, Z, classes] float32 (a view).
        flow: [X, Y, Z, 2] float32 m/s (vx, vy) in the grid's frame, or None.
        memory: to hand in with the next frame.
    """

    labels: Tensor
    logits: Tensor
    flow: Tensor | None
    memory: Memory


class Alocc(nn.Module):
    """One network of the family."""

    def __init__(self, variant: Variant, inter_index_max: int = RELEASED_INTER_INDEX_MAX) -> None:
        super().__init__()
        if not 0 <= inter_index_max < variant.depth_bins:
            raise ModelError(
                f"inter_index_max {inter_index_max}: {variant.name} has {variant.depth_bins} bins"
            )
        v, c = variant, variant.context_channels
        self.variant, self.inter_index_max = variant, inter_index_max
        self.img_backbone = ResNet(v.backbone_width, v.backbone_blocks)
        self.img_neck = ImageNeck(16 * v.backbone_width, 32 * v.backbone_width, v.image_channels)
        self.depth_net = DepthNet(v)
        self.view_transformer = _GridConstants(v)
        if v.pre_process:
            block = VoxelBlock if v.volumetric else FlatBlock
            self.pre_process = _Stages(block(c, c, 1, project=True))
        if v.history:
            conv, norm = (
                (nn.Conv3d, nn.BatchNorm3d) if v.volumetric else (nn.Conv2d, nn.BatchNorm2d)
            )
            self.history_keyframe_time_conv = nn.Sequential(conv(c + 1, c, 1), norm(c))
            self.history_keyframe_cat_conv = nn.Sequential(conv(c * (v.history + 1), c, 1), norm(c))
        self.img_bev_encoder_backbone = Encoder(
            c, v.encoder_channels, v.encoder_blocks, v.volumetric
        )
        neck = VoxelNeck if v.volumetric else FlatNeck
        self.img_bev_encoder_neck = neck(sum(v.encoder_channels), v.neck_channels)
        if not v.volumetric:
            heights = v.grid.shape[2]
            self.final_conv = nn.Conv2d(v.neck_channels, v.voxel_channels * heights, 3, padding=1)
        self.alocc_head = AloccHead(v)

    def forward(
        self,
        frame: NetworkInput,
        memory: Memory | None = None,
        keep: bool = True,
        recycle: Memory | None = None,
    ) -> NetworkOutput:
        """One step.

        Args:
            frame: images and geometry.
            memory: what the previous step returned; None starts anew.
            keep: move the history on. Without, it is used but returned as it came in (frames
                between key frames); the stereo feature and flow map are always this frame's.
            recycle: a memory that nobody needs any more (the one before ``memory``); its history
                buffer may be overwritten instead of allocating another (1.3 GB in the 3D variants).

        Raises:
            ModelError: image or camera count or size is not the variant's.
            TemporalMemoryError: the memory is not this network's.
        """
        v, cameras = self.variant, frame.cameras
        self._check(frame)
        motion = frame.previous_T_current
        if memory is None:
            motion, cameras = torch.eye(4, dtype=torch.float64), cameras.at_rest()

        c2, c4, c5 = self.img_backbone(frame.images)
        for i, level in enumerate((c2, c4, c5) if v.stereo else (c4, c5)):
            observe(f"img_backbone/out{i}", level)
        feature = self.img_neck(c4, c5)
        observe("img_neck/out0", feature)
        cost = self._stereo(c2, cameras, memory) if v.stereo else None
        camera_vector = cameras.camera_vector().to(feature)
        lifted = self.depth_net(feature, camera_vector, cost)
        volume = lift(lifted, cameras, v, self.inter_index_max, frame.alive, frame.lidar_depth)
        observe("view_transformer/lifted", lambda: self._flat(volume))
        if v.pre_process:
            volume = self.pre_process(self._flat(volume)).reshape(volume.shape)
            observe("pre_process/out", lambda: self._flat(volume))
        history, ages, embedded = None, torch.zeros(0), True
        if v.history:
            time_conv, cat_conv = self.history_keyframe_time_conv, self.history_keyframe_cat_conv
            volume, history, ages, embedded = fuse_history(
                volume, memory, motion, frame.elapsed, time_conv, cat_conv, v, keep, recycle
            )
        levels = self.img_bev_encoder_backbone(self._flat(volume))
        for i, level in enumerate(levels):
            observe(f"bev_encoder/backbone{i}", level)
        merged = self.img_bev_encoder_neck(levels)
        observe("bev_encoder/neck", merged)
        logits, voxels = self._classify(merged)
        observe("final/occ_logits_xyzc", lambda: logits.transpose(0, 1))
        found = labels(logits.flatten(0, 2)[:, v.skip_classes :], first=v.skip_classes)
        found = found.view(logits.shape[:3]).transpose(0, 1).contiguous()
        observe("final/occ_argmax", found)
        flow, flow_bev = None, None
        if v.flow:
            previous, glance = None, motion
            if memory is not None:
                previous = memory.flow_bev
                glance = motion if frame.glance_T_current is None else frame.glance_T_current
            where = None
            if not v.flow_everywhere:
                moving = torch.tensor(v.classes.flow, device=found.device)
                where = torch.isin(found, moving).transpose(0, 1)
            flow, flow_bev = self.alocc_head.flow(voxels, previous, glance, v, where)
            # Network components are (along y, along x); users want (vx, vy).
            flow = flow.transpose(0, 1).flip(-1)
            observe("final/flow_fp32", flow)
        if memory is not None and not keep:
            history, ages, embedded = memory.history, memory.ages, memory.embedded
        stereo = c2.detach() if v.stereo else None
        memory = Memory(history, ages, stereo, flow_bev, embedded)
        return NetworkOutput(found, logits.transpose(0, 1), flow, memory)

    def _stereo(self, c2: Tensor, cameras: CameraGeometry, memory: Memory | None) -> Tensor:
        """Matching cost against the key frame's feature, which is kept, never computed again."""
        if memory is None and fast():
            # The frame is its own predecessor: all depths tie.
            bins = self.variant.depth_bins
            cost = c2.new_full((len(c2), bins, *c2.shape[2:]), 1 / bins)
        else:
            previous = c2 if memory is None else memory.stereo
            if previous is None or previous.shape != c2.shape:
                had = "none" if previous is None else list(previous.shape)
                raise TemporalMemoryError(
                    f"{self.variant.name} needs a stereo feature {list(c2.shape)}, "
                    f"the memory holds {had}"
                )
            observe("stereo/curr2adjsensor", cameras.previous_T_camera)
            homography, offset = cameras.stereo_homography(self.variant)
            with torch.no_grad():
                bins = depth_bins(self.variant)
                cost = cost_volume(c2.detach(), previous, homography, offset, bins)
        observe("stereo/cost_volume_softmax", cost)
        return cost

    def _classify(self, merged: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits [Y, X, Z, classes] and, where they exist, voxel features [1, V, Y, X, Z]."""
        v = self.variant
        if v.volumetric:
            observe("voxel_feature_before_head", merged)
            return self.alocc_head(merged), merged
        heights = v.grid.shape[2]
        if not fast():
            raised = conv_bn(merged, self.final_conv)
            observe("final_conv/out", raised)
            voxels = raise_height(raised, heights)
        elif v.flow:
            voxels = self._merged(merged, torch.eye(v.voxel_channels, device=merged.device), ())
            observe("final_conv/out", lambda: voxels.movedim(-1, 2).flatten(1, 2))
        else:
            made_of = tuple(self.alocc_head.parameters())
            logits = self._merged(merged, self.alocc_head.class_embeddings()[1:], made_of)
            return logits[0].permute(1, 2, 3, 0), None
        observe("voxel_feature_before_head", voxels)
        return self.alocc_head(voxels), voxels

    def _merged(self, x: Tensor, matrix: Tensor, made_of: tuple[Tensor, ...]) -> Tensor:
        """``matrix`` times the voxel features, [1, W, Y, X, Z] in the memory order of voxels."""
        heights = self.variant.grid.shape[2]
        flat = conv_bn(x, merged_conv(self.final_conv, matrix, made_of, heights))
        return flat.unflatten(1, (heights, -1)).permute(0, 2, 3, 4, 1)

    def _flat(self, volume: Tensor) -> Tensor:  # [1, C, Y, X, Z] -> [1, C, Y, X] if bird's-eye
        return volume if self.variant.volumetric else volume[..., 0]

    def _check(self, frame: NetworkInput) -> None:
        expected, count = (3, *self.variant.input_size), len(frame.images)
        if frame.images.dim() != 4 or tuple(frame.images.shape[1:]) != expected:
            raise ModelError(
                f"{self.variant.name} takes images [N, {', '.join(map(str, expected))}], "
                f"got {list(frame.images.shape)}"
            )
        if len(frame.cameras.intrinsics) != count:
            raise ModelError(f"{count} images but {len(frame.cameras.intrinsics)} cameras")
        if frame.alive is not None and frame.alive.shape != (count,):
            raise ModelError(f"alive is {list(frame.alive.shape)} for {count} images")
        lidar = frame.lidar_depth
        if lidar is not None and lidar.shape != (count, *self.variant.input_size):
            raise ModelError(
                f"lidar_depth is {list(lidar.shape)}, images {list(frame.images.shape)}"
            )


class _GridConstants(nn.Module):
    """The lattice as the official state_dict stores it: step, first centre, size."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        step = torch.tensor(variant.lift_step)
        lower = torch.tensor(variant.grid.lower)
        self.register_buffer("dx", step)
        self.register_buffer("bx", lower + step / 2)
        self.register_buffer("nx", torch.tensor(variant.lift_cells, dtype=torch.float32))


class _Stages(nn.Module):
    """One residual block under the name that the official state_dict gives it (layers.0.0)."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Sequential(block)])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[0](x)
