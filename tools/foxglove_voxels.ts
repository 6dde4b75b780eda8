// Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
// User script of the layout: the point cloud of voxels as cubes, which every 3D panel can draw.
// Only near the vehicle, and only what is not hidden on all six sides: 90000 cubes a frame are too
// many for a viewer without a GPU. What is farther away are the squares of the cloud itself.

import { Input, Message } from "./types";

export const inputs = ["@NAMESPACE@/occupancy"];
export const output = "/studio_script@NAMESPACE@/voxels";

const REACH = 22; // m

type Marker = Message<"visualization_msgs/Marker">;

export default function script(event: Input<"@NAMESPACE@/occupancy">): Marker {
  const cloud = event.message;
  const view = new DataView(cloud.data.buffer, cloud.data.byteOffset, cloud.data.byteLength);
  const number = cloud.width * cloud.height;
  const axes = ["x", "y", "z", "rgb"].map(
    (name) => cloud.fields.find((field) => field.name === name)?.offset ?? 0,
  );
  const read = (point: number, axis: number) =>
    view.getFloat32(point * cloud.point_step + axes[axis]!, true);

  // Cells are stored column by column, so the smallest step of height is the edge of a voxel.
  let edge = Infinity;
  for (let i = 1; i < number; i++) {
    const step = Math.abs(read(i, 2) - read(i - 1, 2));
    if (step > 0.01 && step < edge) {
      edge = step;
    }
  }
  const cell = (point: number, axis: number) =>
    Math.round((read(point, axis) - read(0, axis)) / edge) + 1000;
  const columns = [2000 * 2000, 2000, 1];
  const near = new Map<number, number>(); // key of a cell to its point
  for (let i = 0; i < number; i++) {
    if (Math.hypot(read(i, 0), read(i, 1)) < REACH) {
      near.set(
        columns.reduce((sum, weight, axis) => sum + weight * cell(i, axis), 0),
        i,
      );
    }
  }

  const points = [];
  const colors = [];
  for (const [key, i] of near) {
    if (!columns.every((weight) => near.has(key + weight) && near.has(key - weight))) {
      const rgb = view.getUint32(i * cloud.point_step + axes[3]!, true);
      // Every other cube is a little darker, so that neighbours can be told apart.
      const shade = (cell(i, 0) + cell(i, 1) + cell(i, 2)) % 2 === 0 ? 255 : 290;
      points.push({ x: read(i, 0), y: read(i, 1), z: read(i, 2) });
      colors.push({
        r: ((rgb >> 16) & 255) / shade,
        g: ((rgb >> 8) & 255) / shade,
        b: (rgb & 255) / shade,
        a: 1,
      });
    }
  }
  const size = Number.isFinite(edge) ? edge : 0.4;
  return {
    header: cloud.header,
    ns: "voxels",
    id: 0,
    type: 6, // CUBE_LIST
    action: 0,
    pose: { position: { x: 0, y: 0, z: 0 }, orientation: { x: 0, y: 0, z: 0, w: 1 } },
    scale: { x: size, y: size, z: size },
    color: { r: 1, g: 1, b: 1, a: 1 },
    lifetime: { sec: 0, nsec: 0 },
    frame_locked: false,
    points,
    colors,
    text: "",
    mesh_resource: "",
    mesh_use_embedded_materials: false,
  } as unknown as Marker; // which fields there are besides differs between ROS releases
}
