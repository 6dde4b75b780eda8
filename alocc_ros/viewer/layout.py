# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Sizes and colours of a page, shared by all its parts."""

from __future__ import annotations

# As people look at it: ahead on top, left on the left; the last row as seen over the shoulder.
CAMERA_LAYOUT = (
    ("cam_front_left", "cam_front", "cam_front_right"),
    ("cam_back_left", "cam_back", "cam_back_right"),
)

# px
PAGE_WIDTH = 1600
MARGIN, GAP = 24, 12
CONTENT_WIDTH = PAGE_WIDTH - 2 * MARGIN
HEADER_HEIGHT, LEGEND_ROW_HEIGHT = 58, 27
PANEL_SIDE = 400  # of bird's-eye views, and how high their row is; whole pixels for 200 cells
CORNER_RADIUS = 7

# R, G, B
BACKGROUND, PANEL = (13, 16, 21), (21, 25, 32)
TEXT, FAINT, WHITE = (232, 235, 240), (139, 148, 160), (255, 255, 255)
AMBER, RED = (255, 190, 80), (255, 107, 107)
