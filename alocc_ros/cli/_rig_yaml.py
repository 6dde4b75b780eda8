# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The rig file that ``alocc rig example`` writes where there is no recording."""

EXAMPLE = """\
# The cameras of a vehicle, for `alocc run PICTURES -o OUT.mcap --model M --config THIS_FILE`, for
# `alocc convert images`, as `calibration_file` of a preset, and for `alocc rig score`.
# Check it with `alocc rig draw PICTURES --config THIS_FILE -o check.png`.
#
# The names say which way a camera looks, in degrees to the left of ahead: cam_front 0,
# cam_front_left 55, cam_front_right -55, cam_back_left 110, cam_back_right -110, cam_back 180.
# Take the nearest (a camera at 90 degrees is cam_back_left). Leave out what the vehicle has not.
cameras:
  cam_front:
    # What holds its images, in the folder of pictures: one picture, a folder, or a film. Left out:
    # whatever is called cam_front.
    images: cam_front
    # Pixels of the images as they are stored, and the camera matrix of that size (K, 3x3).
    width: 1280
    height: 720
    intrinsics: [[905.0, 0.0, 640.0], [0.0, 905.0, 360.0], [0.0, 0.0, 1.0]]
    # Lens distortion as OpenCV counts it; left out: the images are rectified.
    #   plumb_bob: k1 k2 p1 p2 [k3]; rational_polynomial: 8, 12 or 14; equidistant (fisheye): 4
    # distortion_model: plumb_bob
    # distortion: [-0.21, 0.06, 0.0004, -0.0003, 0.0]
    #
    # Where it is mounted. The vehicle: x ahead, y left, z up, z = 0 on the ground. The camera: x to
    # the right of the image, y down, z ahead. One of two directions, in metres:
    #   base_T_camera  camera to vehicle: its translation is the place of the lens on the vehicle
    #   camera_T_base  vehicle to camera, the inverse: what cv2.solvePnP and many tools call
    #                  "extrinsics"
    # Either as a 4x4 matrix, or as translation and one of rotation_xyzw (as ROS writes
    # quaternions), rotation_wxyz (as nuScenes and Eigen do), rotation (3x3).
    base_T_camera:
      translation: [1.75, 0.0, 1.42]
      rotation_xyzw: [-0.5, 0.5, -0.5, 0.5]  # looks straight ahead
  cam_back:
    images: cam_back
    width: 1280
    height: 720
    intrinsics: [[905.0, 0.0, 640.0], [0.0, 905.0, 360.0], [0.0, 0.0, 1.0]]
    camera_T_base:  # the same convention the other way: straight back, 0.6 m behind the origin
      - [0.0, 1.0, 0.0, 0.0]
      - [0.0, 0.0, -1.0, 1.15]
      - [-1.0, 0.0, 0.0, -0.6]
      - [0.0, 0.0, 0.0, 1.0]
"""
