# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Scenes written as a nuScenes folder that every reader of the real one takes.

Beside the tables, images and sweeps there are the labels of Occ3D, OpenOcc (with ray masks),
SurroundOcc and nuScenes-lidarseg. A scene's files come first, then its rows under
``.synthetic/``; the tables are put together when all scenes are there. So a run that was
stopped goes on where it was, and tables never name files that are not there.
"""
