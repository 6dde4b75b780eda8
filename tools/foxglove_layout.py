# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Writes ``rviz/alocc_foxglove.json``, the layout for Foxglove and Lichtblick.

    python tools/foxglove_layout.py

One layout for what the node publishes (``/alocc_node``) and for files of ``alocc run``
(``/alocc``): whichever is there is shown. Colours are those of the classes. Lichtblick draws the
points of a cloud as circles or squares of so many pixels only, so user scripts make cubes of those
near the vehicle, and count the classes for the plot whose legend names the colours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from alocc_ros.labels import OCC3D, OPENOCC
from alocc_ros.outputs import RECORDING_NAMESPACE
from alocc_ros.stream.preset import DEFAULT_PRESET, load_preset
from alocc_ros.types import CAMERAS

TOOLS = Path(__file__).resolve().parent
LAYOUT = TOOLS.parent / "rviz" / "alocc_foxglove.json"
NODE = "/alocc_node"
NAMESPACES = {"node": NODE, "file": RECORDING_NAMESPACE}
POINT_SIZE = 9  # px; where the squares begin, a voxel of 0.4 m is as high in the layout's view
# Of obstacles seen from above: no class has a colour like it.
OBSTACLE = "#2828ffcc"
CLEAR = "#00000000"
LATENCY = "/diagnostics.status[:].values[:]"

Json = dict[str, Any]


def titled(title: str) -> Json:
    """A panel's title, as the two viewers call it."""
    return {"foxglovePanelTitle": title, "lichtblickPanelTitle": title}


def legend() -> dict[str, str]:
    """Every class of the benchmarks but free space, with its colour as ``#rrggbb``."""
    return {
        name: "#" + bytes(colour.tolist()).hex()
        for classes in (OCC3D, OPENOCC)
        for name, colour in zip(classes.names, classes.colours, strict=True)
        if name != "free"
    }


def scripts() -> Json:
    """The user scripts, for each namespace."""
    colours = ", ".join(colour.replace("#", "0x") for colour in legend().values())
    made = {}
    for kind, namespace in NAMESPACES.items():
        for what in ("voxels", "classes"):
            text = (TOOLS / f"foxglove_{what}.ts").read_text(encoding="utf-8")
            text = text.replace("@NAMESPACE@", namespace).replace("@COLOURS@", colours)
            made[f"{what}_{kind}"] = {"name": f"{what} ({kind})", "sourceCode": text}
    return made


def scene_topics(namespace: str) -> Json:
    """What the 3D panel shows of one namespace."""
    return {
        f"/studio_script{namespace}/voxels": {"visible": True, "showOutlines": False},
        f"{namespace}/occupancy": {
            "visible": True,
            "colorField": "rgb",
            "colorMode": "rgb",
            "pointShape": "square",
            "pointSize": POINT_SIZE,
        },
        f"{namespace}/flow_markers": {"visible": True, "showOutlines": False},
        f"{namespace}/object_markers": {"visible": True, "showOutlines": False},
        f"{namespace}/occupancy_grid": {
            "visible": True,
            "colorMode": "custom",
            "minColor": CLEAR,
            "maxColor": OBSTACLE,
            "unknownColor": CLEAR,
            "invalidColor": CLEAR,
            "frameLocked": False,
        },
        f"{namespace}/obstacles": {
            "visible": False,
            "colorMode": "flat",
            "flatColor": OBSTACLE,
            "pointShape": "square",
            "pointSize": POINT_SIZE,
        },
    }


def scene() -> Json:
    """The 3D panel."""
    return {
        "followTf": "base_link",
        "followMode": "follow-pose",
        "cameraState": {
            "perspective": True,
            "distance": 60.0,
            "phi": 55.0,
            "thetaOffset": 90.0,
            "fovy": 45.0,
            "near": 0.5,
            "far": 5000.0,
            "target": [0.0, 0.0, 0.0],
            "targetOffset": [0.0, 0.0, 0.0],
            "targetOrientation": [0.0, 0.0, 0.0, 1.0],
        },
        "scene": {
            "backgroundColor": "#18181c",
            # With the viewer's own lights cubes are half as bright again as the legend's colours.
            "directionalLightIntensity": 1.7,
            "hemisphereLightIntensity": 1.2,
            "transforms": {
                "showLabel": False,
                "axisScale": 2.0,
                "lineWidth": 0,
                "enablePreloading": True,
            },
        },
        "topics": {k: v for n in NAMESPACES.values() for k, v in scene_topics(n).items()},
        **titled("Voxels, flow, objects, what blocks the way"),
    }


def image(topic: str, title: str) -> Json:
    """A panel with one picture."""
    return {"imageMode": {"imageTopic": topic}, **titled(title)}


def line(path: str, label: str, colour: str) -> Json:
    """One row of a plot."""
    return {
        "value": path,
        "label": label,
        "color": colour,
        "enabled": True,
        "timestampMethod": "receiveTime",
        "showLine": True,
    }


def plot(title: str, unit: str, lines: list[Json]) -> Json:
    """A plot over time, with its legend to the left."""
    return {
        "paths": lines,
        "minYValue": 0,
        "showLegend": True,
        "legendDisplay": "left",
        "showPlotValuesInLegend": True,
        "sidebarDimension": 190,
        "showXAxisLabels": True,
        "showYAxisLabels": True,
        "yAxisLabel": unit,
        "isSynced": True,
        "xAxisVal": "timestamp",
        **titled(title),
    }


def class_plot(kind: str) -> Json:
    """Voxels of each class: the legend of the colours."""
    counts = f"/studio_script{NAMESPACES[kind]}/classes.counts"
    rows = enumerate(legend().items())
    lines = [line(f"{counts}[{i}]", name, colour) for i, (name, colour) in rows]
    return plot(f"Classes ({kind})", "voxels", lines)


def latency_plot() -> Json:
    """From the image's stamp to the result, and what of it the network takes."""
    names = {
        "latency_p50_ms": ("p50", "#4e98e2"),
        "latency_p95_ms": ("p95", "#f5774d"),
        "network_p50_ms": ("network", "#f7df71"),
    }
    lines = [
        line(f'{LATENCY}{{key=="{key}"}}.value', label, colour)
        for key, (label, colour) in names.items()
    ]
    return plot("Stamp to result (node)", "ms", lines)


def diagnostics(topic: str, title: str) -> Json:
    """What is said of cameras, sets and the network."""
    return {
        "topicToRender": topic,
        "minLevel": 0,
        "pinnedIds": [],
        "hardwareIdFilter": "",
        "sortByLevel": True,
        **titled(title),
    }


def split(direction: str, first: Any, second: Any, percentage: float) -> Json:
    """Two parts of a window."""
    return {
        "direction": direction,
        "first": first,
        "second": second,
        "splitPercentage": percentage,
    }


def tabs(**layouts: Any) -> Json:
    """Parts of which one is seen."""
    entries = [{"title": k.replace("_", " "), "layout": v} for k, v in layouts.items()]
    return {"activeTabIdx": 0, "tabs": entries}


def six(name: str) -> Json:
    """Six pictures in two rows, as they lie around the vehicle."""
    rows = []
    for side in ("front", "back"):
        left, middle, right = (f"{name}cam_{side}{end}" for end in ("_left", "", "_right"))
        rows.append(split("row", left, split("row", middle, right, 50.0), 33.3))
    return split("column", *rows, 50.0)


def layout() -> Json:
    """All of it."""
    images = load_preset(DEFAULT_PRESET).cameras
    panels: Json = {"3D!scene": scene()}
    for camera in CAMERAS:
        overlay = f"{NODE}/overlay/{camera}"
        panels[f"Image!overlay_{camera}"] = image(overlay, camera)
        panels[f"Image!input_{camera}"] = image(images[camera].image, camera)
    panels |= {
        "Image!overlay": image(f"{NODE}/overlay/cam_front", "cam_front, voxels drawn in"),
        "Image!input": image(images["cam_front"].image, "cam_front"),
        "DiagnosticSummary!node": diagnostics("/diagnostics", "Diagnostics (node)"),
        "DiagnosticSummary!file": diagnostics(
            f"{RECORDING_NAMESPACE}/diagnostics", "Diagnostics (file)"
        ),
        "RawMessages!status": {
            "topicPath": f"{NODE}/status",
            "diffEnabled": False,
            "expansion": "all",
            **titled("Status (node)"),
        },
        "Plot!classes_node": class_plot("node"),
        "Plot!classes_file": class_plot("file"),
        "Plot!latency": latency_plot(),
    }
    panels |= {
        "Tab!cameras": tabs(
            front="Image!input",
            voxels_drawn_in="Image!overlay",
            all_six=six("Image!input_"),
            all_six_drawn_in=six("Image!overlay_"),
        ),
        "Tab!classes": tabs(node="Plot!classes_node", file="Plot!classes_file"),
        "Tab!state": tabs(
            node="DiagnosticSummary!node",
            status="RawMessages!status",
            file="DiagnosticSummary!file",
        ),
    }
    # The legend has seventeen rows: it wants the height.
    left = split("column", "Tab!classes", "Plot!latency", 66.0)
    right = split("column", "Tab!cameras", "Tab!state", 50.0)
    return {
        "configById": panels,
        "globalVariables": {},
        "userNodes": scripts(),
        "playbackConfig": {"speed": 1},
        "layout": split("row", left, split("row", "3D!scene", right, 64.0), 22.0),
    }


if __name__ == "__main__":
    LAYOUT.write_text(json.dumps(layout(), indent=2) + "\n", encoding="utf-8")
    print(f"wrote {LAYOUT}")
