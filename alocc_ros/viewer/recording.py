# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Frames for the Rerun viewer: on the screen, or into an ``.rrd`` file without one.

Rerun is optional (``pip install alocc_ros[viewer]``). All is placed on the map, so the vehicle
drives through it; each camera stands where it was when it took its image.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from alocc_ros.arrays import flow_lines, voxel_centres
from alocc_ros.errors import OutputError, ParameterError
from alocc_ros.files import whole_file
from alocc_ros.stream.decoding import decode
from alocc_ros.stream.image_geometry import Undistortion
from alocc_ros.types import CAMERAS, Calibration, CameraImage, FrameSet
from alocc_ros.viewer.frames import Layer, ViewFrame
from alocc_ros.viewer.layers import align_to_frame
from alocc_ros.viewer.layout import CAMERA_LAYOUT

_MAP, _BASE, _CAMERAS = "map", "map/base", "map/cameras"
_OLDEST = (0, 26)  # as in setup.cfg
_IMAGE_PLANE = 1.5  # m before the camera, where its image hangs
_AXES = np.eye(3, dtype=np.float32)
_AXIS_COLOURS = ((235, 80, 80), (90, 200, 90), (80, 140, 255))


def rerun() -> Any:
    """The Rerun SDK.

    Raises:
        ParameterError: it is not installed, or too old.
    """
    try:
        import rerun as sdk
        import rerun.blueprint  # noqa: F401
    except ImportError as error:
        raise ParameterError(
            "the Rerun viewer is not installed: pip install 'alocc_ros[viewer]' (or pip install "
            f"rerun-sdk); --png and --animation do without it ({error})"
        ) from error
    if tuple(int(number) for number in sdk.__version__.split(".")[:2]) < _OLDEST:
        raise ParameterError(
            f"the Rerun viewer {sdk.__version__} is too old: pip install --upgrade rerun-sdk"
        )
    return sdk


class Recording:
    """A Rerun recording that is being written; use it in a ``with`` block."""

    def __init__(self, path: Path | None, layers: tuple[str, ...], *, cameras: bool) -> None:
        """Starts the viewer, or a file.

        Args:
            path: ``.rrd`` file to write; None: open the viewer.
            layers: names of what will come, each gets a view of its own.
            cameras: whether there will be images.

        Raises:
            ParameterError: Rerun is not installed.
            OutputError: the file cannot be written, or there is no viewer to be started.
        """
        self._rr = rr = rerun()
        self._path = path
        self._origin: np.ndarray | None = None
        self._calibrations: dict[str, Calibration] = {}
        self._undistortions: dict[str, Undistortion] = {}
        self._stream = rr.RecordingStream("alocc_ros")
        self._known: set[str] = set()
        blueprint = _blueprint(layers, cameras)
        try:
            with ExitStack() as stack:
                if path:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    scratch = stack.enter_context(whole_file(path))
                    self._stream.save(scratch, default_blueprint=blueprint)
                else:
                    self._stream.spawn(default_blueprint=blueprint)
                self._open = stack.pop_all()
        except (OSError, RuntimeError) as error:
            place = f"cannot write {path}" if path else "the Rerun viewer does not start"
            raise OutputError(f"{place}: {error}") from error
        self._stream.log(_MAP, rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        self._stream.log(
            f"{_BASE}/axes",
            rr.Arrows3D(vectors=2 * _AXES, origins=np.zeros((3, 3)), colors=_AXIS_COLOURS),
            static=True,
        )

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *failure: Any) -> None:
        """The file gets its name, if all went well.

        Raises:
            OutputError: it cannot be written.
        """
        self._stream.flush()
        self._stream.disconnect()
        try:
            self._open.__exit__(*failure)
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror or error}") from error

    def add(self, number: int, view: ViewFrame) -> None:
        """One more frame; ``number`` counts them.

        Raises:
            ImageError: an image that has to be decoded cannot be.
        """
        rr, stream = self._rr, self._stream
        stream.set_time("frame", sequence=number)
        stream.set_time("stamp", timestamp=np.datetime64(view.stamp, "ns"))
        frame = view.frame_set
        layers = [align_to_frame(layer, frame) for layer in view.layers]
        map_T_base = frame.map_T_base if frame else layers[0].occupancy.map_T_base
        if self._origin is None:
            # Far from the map's origin single precision is not enough to draw with.
            self._origin = np.round(map_T_base[:3, 3])
        stream.log(_BASE, self._on_map(map_T_base))
        there = set()
        for camera in CAMERAS:
            if frame is not None and camera in frame.images:
                there.add(self._add_camera(frame, camera))
        for layer in layers:
            there.add(self._add_layer(layer))
        for gone in self._known - there:
            stream.log(gone, rr.Clear(recursive=True))
        self._known |= there

    def _on_map(self, a_T_b: np.ndarray) -> Any:
        return self._rr.Transform3D(
            translation=a_T_b[:3, 3] - self._origin, mat3x3=np.ascontiguousarray(a_T_b[:3, :3])
        )

    def _add_camera(self, frame: FrameSet, camera: str) -> str:
        """Returns the entity."""
        rr, place = self._rr, f"{_CAMERAS}/{camera}"
        calibration = frame.calibration[camera]
        map_T_camera = frame.map_T_base_at[camera] @ calibration.base_T_camera
        self._stream.log(place, self._on_map(map_T_camera))
        pinhole = rr.Pinhole(
            image_from_camera=calibration.intrinsics,
            resolution=(calibration.width, calibration.height),
            camera_xyz=rr.ViewCoordinates.RDF,
            image_plane_distance=_IMAGE_PLANE,
        )
        self._stream.log(place, pinhole)
        self._stream.log(f"{place}/image", self._picture(frame.images[camera], calibration))
        return place

    def _picture(self, image: CameraImage, calibration: Calibration) -> Any:
        """Compressed images go as they are, unless the lens distorts them."""
        data = bytes(memoryview(image.data).cast("B")[:4])
        media = {b"\xff\xd8": "image/jpeg", b"\x89P": "image/png"}.get(data[:2])
        distorted = any(calibration.distortion)
        if media and not image.height and not distorted:
            contents = bytes(memoryview(image.data).cast("B"))
            return self._rr.EncodedImage(contents=contents, media_type=media)
        pixels = decode(image)
        if distorted:
            if self._calibrations.get(image.camera) is not calibration:
                self._calibrations[image.camera] = calibration
                self._undistortions[image.camera] = Undistortion(calibration)
            pixels = self._undistortions[image.camera](pixels)
        return self._rr.Image(pixels).compress(jpeg_quality=90)

    def _add_layer(self, layer: Layer) -> str:
        """Returns the entity."""
        rr, occupancy = self._rr, layer.occupancy
        place = f"{_BASE}/{entity_of(layer.name)}"
        classes, grid = occupancy.classes, occupancy.grid
        offset = np.eye(4) if layer.base_T_grid is None else layer.base_T_grid
        turn = np.ascontiguousarray(offset[:3, :3])
        self._stream.log(place, rr.Transform3D(translation=offset[:3, 3], mat3x3=turn))
        names = [
            (label, name, tuple(classes.colours[label].tolist()))
            for label, name in enumerate(classes.names)
        ]
        self._stream.log(place, rr.AnnotationContext(names), static=True)
        flat = np.flatnonzero(occupancy.labels != classes.free)
        boxes = rr.Boxes3D(
            centers=np.stack(voxel_centres(grid, flat), axis=1),
            half_sizes=np.full((len(flat), 3), 0.5 * grid.resolution, np.float32),
            class_ids=occupancy.labels.reshape(-1)[flat].astype(np.uint16),
            fill_mode="solid",
            show_labels=False,
        )
        self._stream.log(f"{place}/voxels", boxes)
        if occupancy.flow is not None:
            lines = flow_lines(occupancy)
            arrows = rr.Arrows3D(
                origins=lines.ends[:, 0],
                vectors=lines.ends[:, 1] - lines.ends[:, 0],
                colors=(255 * lines.colours).astype(np.uint8),
            )
            self._stream.log(f"{place}/flow", arrows)
        return place


def entity_of(name: str) -> str:
    """A layer's name as a part of an entity's path."""
    return "".join(c if c.isalnum() else "_" for c in name)


def _blueprint(layers: tuple[str, ...], cameras: bool) -> Any:
    """Each layer in a view of its own, side by side; below them the images, as people look."""
    import rerun.blueprint as rrb

    shared = [f"{_BASE}/axes", f"{_CAMERAS}/**"]
    views = [
        rrb.Spatial3DView(
            origin=f"/{_BASE}",
            name=name,
            contents=[*(f"/{path}" for path in shared), f"/{_BASE}/{entity_of(name)}/**"],
        )
        for name in layers or ("",)
    ]
    parts = [rrb.Horizontal(*views)]
    if cameras:
        images = [
            rrb.Spatial2DView(origin=f"/{_CAMERAS}/{camera}", name=camera)
            for row in CAMERA_LAYOUT
            for camera in row
        ]
        parts.append(rrb.Grid(*images, grid_columns=3))
    return rrb.Blueprint(rrb.Vertical(*parts), rrb.TimePanel(timeline="stamp"))
