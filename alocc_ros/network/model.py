# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The ALOcc network: images, the plan of the frame and a state in, labels and flow and a state out.

This file is the paper's figure 2; every step is one call. Module names are those of the official
state_dict; what has no weights there is a module all the same, so that hooks can watch it. One
forward serves training and inference, any number of samples at once, and a network that was
prepared (``runtime/prepare.py``) as well as one that was not. Nothing here belongs to the host: no
branch on a number of a tensor, no copy, no clock.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from alocc_ros.errors import ModelError, TemporalMemoryError
from alocc_ros.network.backbone import ResNet
from alocc_ros.network.depth import DepthNet, DepthPrediction, Gates
from alocc_ros.network.encoder import BEVBlock, BEVNeck, Encoder, VoxelBlock, VoxelNeck
from alocc_ros.network.geometry_fusion import GeometryFusion, GeometryMix, NoGeometryFusion
from alocc_ros.network.heads import (
    AloccHead,
    Classifier,
    FlowCost,
    FlowHead,
    FlowMap,
    FlowMatching,
    mix_true_match,
)
from alocc_ros.network.lifting import RELEASED_INTER_INDEX_MAX, Lifting
from alocc_ros.network.neck import ImageNeck
from alocc_ros.network.plan import PlanTensors
from alocc_ros.network.recurrent import (
    NoScene,
    RecurrentFusion,
    RecurrentLayers,
    SceneFusion,
)
from alocc_ros.network.state import State
from alocc_ros.network.temporal import HistoryFusion, NoFusion
from alocc_ros.network.variants import Variant
from alocc_ros.ops.argmax import occupancy_argmax
from alocc_ros.ops.cost_volume import cost_volume


class RigConstants(NamedTuple):
    """What follows from the rig alone and can stay while the plan's rig part does.

    Attributes:
        gates: of the depth network.
        nodes: where each depth bin is scattered to (``Lifting.place``); None: worked out anew.
    """

    gates: Gates
    nodes: tuple[Tensor, Tensor] | None = None


class Seen(NamedTuple):
    """What depends on one image alone, of each of B * N images; see ``Alocc.see``.

    Attributes:
        c2: [B * N, C2, H/4, W/4], for the stereo of this frame and of later ones.
        feature: [B * N, C, H/16, W/16].
    """

    c2: Tensor
    feature: Tensor


class Measured(NamedTuple):
    """Measurements, or truth, that replace what the network believes.

    Attributes:
        depth_bins: [B * N, h, w] int64, -1: nothing measured; None: no depth.
        depth_share: share of the measured bin, 1 for LiDAR.
        denoising: the bins are truth that helps a network in training, not what it is made for.
        match: [B, taps, Y/2, X/2] match of the true occupancy (training); None: none.
        match_share: its share.
    """

    depth_bins: Tensor | None = None
    depth_share: float = 1.0
    denoising: bool = False
    match: Tensor | None = None
    match_share: float = 0.0


class Prediction(NamedTuple):
    """All that losses look at, of B samples with N cameras.

    Attributes:
        depth: [B * N, ...] of the depth network, as predicted.
        logits: [B, Y, X, Z, classes].
        voxels: [B, V, Y, X, Z]; None where only the logits are made (prepared networks).
        flow_cost: [B, 24, Y, X] match with the reference frame; None without flow.
        labels: [B, Y, X, Z] uint8, where they were made with the logits; None: not yet.
    """

    depth: DepthPrediction
    logits: Tensor
    voxels: Tensor | None
    flow_cost: Tensor | None
    labels: Tensor | None = None


class Output(NamedTuple):
    """One frame's answer.

    Attributes:
        labels: [B, X, Y, Z] uint8, benchmark classes.
        logits: [B, X, Y, Z, classes] (a view).
        flow: [B, X, Y, Z, 2] m/s (vx, vy) in the grid's frame, or None.
        flow_overflow: [B] int64, moving voxels that got no flow because there were too many; None
            where every voxel gets one.
    """

    labels: Tensor
    logits: Tensor
    flow: Tensor | None
    flow_overflow: Tensor | None


class Alocc(nn.Module):
    """One network of the family.

    Attributes:
        variant: which one.
        dtype: of images, activations and state; ``runtime.pack_for_gpu`` makes it half precision.
    """

    def __init__(self, variant: Variant, inter_index_max: int = RELEASED_INTER_INDEX_MAX) -> None:
        super().__init__()
        if not 0 <= inter_index_max < variant.depth_bins:
            raise ModelError(
                f"inter_index_max {inter_index_max}: {variant.name} has {variant.depth_bins} bins"
            )
        v, c = variant, variant.context_channels
        self.variant, self.dtype = variant, torch.float32
        self.img_backbone = ResNet(v.backbone_width, v.backbone_blocks)
        self.img_neck = ImageNeck(16 * v.backbone_width, 32 * v.backbone_width, v.image_channels)
        if v.stereo:
            self.stereo = StereoMatching(v)
        self.depth_net = DepthNet(v)
        self.view_transformer = _GridConstants(v)
        self.lift = Lifting(v, inter_index_max)
        self.pre_process: nn.Module = nn.Identity()
        if v.pre_process:
            block = VoxelBlock if v.volumetric else BEVBlock
            self.pre_process = _Stages(block(c, c, 1, project=True))
        self.geometry: nn.Module = NoGeometryFusion()
        self.fusion: nn.Module = NoFusion()
        self.scene: nn.Module = NoScene()
        if v.recurrent:
            self.geometry = GeometryFusion(v, self.depth_net)
            self.lift.mix = GeometryMix(self.depth_net)
            layers = RecurrentLayers.of(v)
            for name, module in layers._asdict().items():
                self.add_module(name, module)
            self.fusion = RecurrentFusion(v, layers)
            self.scene = SceneFusion(v, layers.scene_his_func_after_vox_his)
        elif v.history:
            conv, norm = (
                (nn.Conv3d, nn.BatchNorm3d) if v.volumetric else (nn.Conv2d, nn.BatchNorm2d)
            )
            self.history_keyframe_time_conv = nn.Sequential(conv(c + 1, c, 1), norm(c))
            self.history_keyframe_cat_conv = nn.Sequential(conv(c * (v.history + 1), c, 1), norm(c))
            self.fusion = HistoryFusion(
                v, self.history_keyframe_time_conv, self.history_keyframe_cat_conv
            )
        self.img_bev_encoder_backbone = Encoder(
            c, v.encoder_channels, v.encoder_blocks, v.volumetric
        )
        neck = VoxelNeck if v.volumetric else BEVNeck
        self.img_bev_encoder_neck = neck(sum(v.encoder_channels), v.neck_channels)
        if not v.volumetric:
            heights = v.grid.shape[2]
            self.final_conv = nn.Conv2d(v.neck_channels, v.voxel_channels * heights, 3, padding=1)
        self.alocc_head = AloccHead(v)
        self.classify: nn.Module = Classifier(v, getattr(self, "final_conv", None), self.alocc_head)
        self.operator = occupancy_argmax
        if v.flow:
            self.flow_map, self.flow_match = FlowMap(), FlowMatching()
            self.flow_cost = FlowCost(v, self.alocc_head)
            self.flow_head: nn.Module = FlowHead(v, self.alocc_head)

    def forward(
        self,
        images: Tensor | Seen,  # [B * N, 3, H, W] preprocessed (stream/preprocessing.py)
        plan: PlanTensors,
        state: State | None = None,
        out: State | None = None,
        keyframe: bool = True,
        rig: RigConstants | None = None,
        measured: Measured | None = None,
        recalled: Tensor | None = None,
    ) -> tuple[Output, State]:
        """One step.

        Args:
            images: of all samples, one sample after the other; or what ``see`` made of them.
            plan: of the frame.
            state: what the last key frame left, with the reference frame's features; None begins a
                sequence.
            out: buffers like the state's, overwritten with the new state; None: new ones are made.
            keyframe: move the history on. Without, it is used but returned as it came in (frames
                between key frames); the stereo feature and flow map are always this frame's.
            rig: what ``calibrate`` made of a plan with the same rig; None: worked out anew.
            measured: LiDAR depth.
            recalled: what ``fusion.recall`` made of this plan and state; None: it does so now.

        Raises:
            ModelError: images or plan are not the variant's.
            TemporalMemoryError: the state is not this network's.
        """
        prediction, state = self.predict(
            images, plan, state, out, keyframe, rig, measured, recalled
        )
        logits, labels = prediction.logits, prediction.labels  # [B, Y, X, Z]
        if labels is None:
            skip = self.variant.skip_classes
            labels = self.operator(logits[..., skip:], skip)
        flow = overflow = None
        if self.variant.flow:
            flow, overflow = self.flow_head(prediction.flow_cost, prediction.voxels, labels)
            flow = flow.transpose(1, 2)
        labels = labels.transpose(1, 2).contiguous()  # the order in which they lie in memory
        return Output(labels, logits.transpose(1, 2), flow, overflow), state

    def predict(
        self,
        images: Tensor | Seen,
        plan: PlanTensors,
        state: State | None = None,
        out: State | None = None,
        keyframe: bool = True,
        rig: RigConstants | None = None,
        measured: Measured | None = None,
        recalled: Tensor | None = None,
    ) -> tuple[Prediction, State]:
        """``forward`` up to what losses look at; arguments as there."""
        v, measured = self.variant, measured or Measured()
        out = out or State()
        if recalled is None:
            recalled = self.fusion.recall(state, plan, out, keyframe)
        depth, c2 = self.encode_images(images, plan, state, rig)
        known = None
        if measured.depth_bins is not None:
            known = measured.depth_bins, measured.depth_share
        lidar, truth = (None, known) if measured.denoising else (known, None)
        depth, geometry, known = self.geometry(depth, state, plan, out, keyframe, lidar, truth)
        volume = self.lift(depth, plan, None if rig is None else rig.nodes, known)
        volume = self.pre_process(self.planes(volume)).view(volume.shape)
        volume, new = self.fusion(volume, recalled, state, plan, out, keyframe)
        volume, scene = self.scene(volume, state, plan, out, keyframe)
        levels = self.img_bev_encoder_backbone(self.planes(volume))
        classified = self.classify(self.img_bev_encoder_neck(levels))
        flow_cost = bev = None
        if v.flow:
            bev = self.flow_map(classified.voxels, out.flow_bev)
            match = self.flow_match(bev, self.previous_map(bev, plan, state), plan.flow_motion)
            if measured.match is not None:
                match = mix_true_match(match, measured.match, measured.match_share)
            flow_cost = self.flow_cost(match)
        stereo = c2.detach() if v.stereo else None
        new = new._replace(
            stereo=_kept(stereo, out.stereo),
            flow_bev=_kept(bev, out.flow_bev),
            geometry=geometry,
            scene=scene,
        )
        logits, voxels, labels = classified
        return Prediction(depth, logits, voxels, flow_cost, labels), new

    def see(self, images: Tensor) -> Seen:  # [n, 3, H, W], any number of images
        """The part that looks at each image by itself; needs neither plan nor past.

        Raises:
            ModelError: images are not the variant's.
        """
        expected = (3, *self.variant.input_size)
        if images.dim() != 4 or tuple(images.shape[1:]) != expected:
            raise ModelError(
                f"{self.variant.name} takes images [N, {', '.join(map(str, expected))}], "
                f"got {list(images.shape)}"
            )
        c2, c4, c5 = self.img_backbone(images)
        return Seen(c2, self.img_neck(c4, c5))

    def encode_images(
        self,
        images: Tensor | Seen,  # [B * N, 3, H, W]
        plan: PlanTensors,
        state: State | None = None,
        rig: RigConstants | None = None,
    ) -> tuple[DepthPrediction, Tensor]:
        """The part that only looks at images: depth and context of every pixel, and the feature
        [B * N, C2, H/4, W/4] for the stereo of later frames.
        """
        seen = images if isinstance(images, Seen) else None
        count, cameras = len(images if seen is None else seen.c2), len(plan.camera_vector)
        if count != cameras:
            raise ModelError(f"{count} images but {cameras} cameras")
        c2, feature = self.see(images) if seen is None else seen
        cost = None
        if self.variant.stereo:
            reference = None if state is None else state.stereo
            if state is not None and reference is None:
                raise TemporalMemoryError(
                    f"{self.variant.name} needs a stereo feature in its state"
                )
            cost = self.stereo(c2, reference, plan.homography, plan.offset)
        gates = self.depth_net.gates(plan.camera_vector) if rig is None else rig.gates
        return self.depth_net(feature, gates, cost), c2

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.view_transformer.dx.device

    def calibrate(self, plan: PlanTensors, nodes: bool = True) -> RigConstants:
        """What stays as long as the rig does; ``nodes`` are of no use to the CPU's kernel."""
        return RigConstants(
            self.depth_net.gates(plan.camera_vector), self.lift.place(plan) if nodes else None
        )

    def empty_state(self, samples: int = 1, cameras: int = 6) -> State:
        """Buffers for the state of so many streams, on this network's device, without values."""
        stereo, flow_bev = self.empty_features(samples, cameras)
        parts = {
            # Sums that grow for as long as the stream lasts are no affair of half precision.
            name: torch.empty(
                shape, dtype=torch.float32 if name == "scene" else self.dtype, device=self.device
            )
            for name, shape in self.keyframe_shapes(samples, cameras).items()
        }
        return State(stereo=stereo, flow_bev=flow_bev, **parts)

    def keyframe_shapes(self, samples: int = 1, cameras: int = 6) -> dict[str, tuple[int, ...]]:
        """Of the parts of the state that key frames renew, by name."""
        geometry = self.geometry.shapes(samples, cameras)
        return geometry | self.fusion.shapes(samples) | self.scene.shapes(samples)

    def empty_features(
        self, samples: int = 1, cameras: int = 6
    ) -> tuple[Tensor | None, Tensor | None]:
        """Of those the part that each reference frame has: stereo feature and flow map."""
        v, stereo, flow_bev = self.variant, None, None
        order = {
            "memory_format": torch.channels_last,
            "dtype": self.dtype,
            "device": self.device,
        }
        if v.stereo:
            height, width = v.input_size
            size = (samples * cameras, 4 * v.backbone_width, height // 4, width // 4)
            stereo = torch.empty(size, **order)
        if v.flow:
            x, y, _ = v.grid.shape
            flow_bev = torch.empty(samples, v.voxel_channels, y, x, **order)
        return stereo, flow_bev

    def planes(self, volume: Tensor) -> Tensor:  # [B, C, Y, X, Z]
        """As the encoder takes it: of bird's-eye networks [B, C, Y, X]."""
        return volume if self.variant.volumetric else volume[..., 0]

    @staticmethod
    def previous_map(bev: Tensor, plan: PlanTensors, state: State | None) -> Tensor:
        """The map to match with; a sample that begins a sequence is its own predecessor."""
        if state is None:
            return bev
        if plan.has_reference is None:
            return state.flow_bev
        return torch.where(plan.has_reference.view(-1, 1, 1, 1), state.flow_bev, bev)


class StereoMatching(nn.Module):
    """Matching cost of each depth against the reference frame's feature, which is kept, never
    computed again.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.operator = cost_volume
        self._name, self._bins = variant.name, variant.depth_bins
        self._depths = (float(variant.depth_range[0]), float(variant.depth_step))

    def forward(
        self,
        feature: Tensor,  # [N, C2, h, w]
        reference: Tensor | None,  # likewise; None: the frame is its own, all depths tie
        homography: Tensor,  # [N, 3, 3]
        offset: Tensor,  # [N, 3]
    ) -> Tensor:  # [N, D, h, w]
        if reference is None:
            shape = (len(feature), self._bins, *feature.shape[2:])
            return feature.new_full(shape, 1 / self._bins)
        if reference.shape != feature.shape:
            raise TemporalMemoryError(
                f"{self._name} needs a stereo feature {list(feature.shape)}, "
                f"the state holds {list(reference.shape)}"
            )
        return self.operator(
            feature.detach(), reference, homography, offset, *self._depths, self._bins
        )


class _GridConstants(nn.Module):
    """The lattice as the official state_dict stores it: step, first centre, size."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        step = torch.tensor(variant.lift_step)
        lower = torch.tensor(variant.lift_lower)
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


def _kept(value: Tensor | None, out: Tensor | None) -> Tensor | None:
    return value if value is None or out is None or value is out else out.copy_(value)
