// Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
// User script of the layout: how many voxels there are of each class, by its colour.

import { Input } from "./types";

export const inputs = ["@NAMESPACE@/occupancy"];
export const output = "/studio_script@NAMESPACE@/classes";

// In the order of the legend; 0xRRGGBB.
const COLOURS = [@COLOURS@];

type Counts = { counts: number[] };

export default function script(event: Input<"@NAMESPACE@/occupancy">): Counts {
  const cloud = event.message;
  const view = new DataView(cloud.data.buffer, cloud.data.byteOffset, cloud.data.byteLength);
  const rgb = cloud.fields.find((field) => field.name === "rgb")?.offset ?? 0;
  const found = new Map<number, number>();
  for (let i = 0; i < cloud.width * cloud.height; i++) {
    const colour = view.getUint32(i * cloud.point_step + rgb, true) & 0xffffff;
    found.set(colour, (found.get(colour) ?? 0) + 1);
  }
  return { counts: COLOURS.map((colour) => found.get(colour) ?? 0) };
}
