# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
# ROS 2, torch and this package, built and checked:
#   docker build -t alocc_ros .
#   docker run --rm -it --gpus all --net=host --ipc=host -v "$PWD/bags:/bags" alocc_ros \
#     ros2 launch alocc_ros alocc.launch.py model:=alocc_flow_2d bag:=/bags/drive
# Another release: --build-arg ROS_DISTRO=jazzy. Without CUDA, gigabytes smaller:
# --build-arg TORCH_OPTIONS= (empty). --ipc=host is for shared memory, through which images go.
ARG ROS_DISTRO=lyrical
FROM ros:${ROS_DISTRO}-ros-base
ARG TORCH_OPTIONS=--gpu
SHELL ["/bin/bash", "-eo", "pipefail", "-c"]

# What package.xml names; by itself, so that a change of the code does not repeat it.
WORKDIR /alocc/src/alocc_ros
COPY package.xml ./
RUN apt-get update \
  && apt-get install -y --no-install-recommends python3-pip python3-venv \
  && rosdep update --rosdistro "$ROS_DISTRO" \
  && rosdep install -y --rosdistro "$ROS_DISTRO" --from-paths . --ignore-src \
  && rm -rf /var/lib/apt/lists/*

# torch, and what else only pip has, in an environment that sees ROS's Python packages.
ENV VIRTUAL_ENV=/alocc/venv
ENV PATH="$VIRTUAL_ENV/bin:$PATH"
COPY tools/install_torch.py tools/
RUN python3 -m venv --system-site-packages "$VIRTUAL_ENV" \
  && pip install --no-cache-dir "pip>=25.3" \
  && python tools/install_torch.py $TORCH_OPTIONS
COPY setup.cfg ./
COPY tools/pip_requirements.py tools/
RUN pip install --no-cache-dir -r <(python tools/pip_requirements.py)

COPY . .
WORKDIR /alocc
RUN source "/opt/ros/$ROS_DISTRO/setup.bash" \
  && colcon build --base-paths src --cmake-args -DBUILD_TESTING=OFF \
  && source install/setup.bash \
  && ros2 run alocc_ros alocc doctor --node \
  && sed -i '/^exec /i source /alocc/install/setup.bash' /ros_entrypoint.sh
CMD ["bash"]
