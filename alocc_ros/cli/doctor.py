# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc doctor``: what is here, what is missing, and the command that mends it.

Exits with 0 if ``alocc run`` has what it needs (with ``--node``: the node too), else with 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.metadata
import json
import logging
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import alocc_ros
from alocc_ros.cli._accelerators import Finding, accelerators, backend, cache
from alocc_ros.errors import AloccError

# Modules that `alocc run` imports and what pip calls them; torch has a check of its own.
LIBRARIES = {
    "PIL": "Pillow",
    "cv2": "opencv-python-headless",
    "huggingface_hub": "huggingface_hub",
    "mcap": "mcap",
    "mcap_ros2": "mcap-ros2-support",
    "numpy": "numpy",
    "pydantic.type_adapter": "pydantic",  # distributions have pydantic 1, which lacks it
    "rich": "rich",
    "rosbags": "rosbags",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "yaml": "PyYAML",
}
STANDARD_MESSAGES = (
    "builtin_interfaces",
    "diagnostic_msgs",
    "geometry_msgs",
    "nav_msgs",
    "rcl_interfaces",
    "rosgraph_msgs",
    "sensor_msgs",
    "std_msgs",
    "std_srvs",
    "visualization_msgs",
)
# No wheel has these; ros_standins/ holds ours.
ROS_PYTHON = ("tf2_ros", "message_filters", "cv_bridge")
# What tells that a package works, where that it can be imported is not enough: cv_bridge's compiled
# half counts OpenCV's types as the OpenCV does that it was compiled with.
_PROBES = {
    "cv_bridge": "import cv_bridge, sensor_msgs.msg\n"
    "m = sensor_msgs.msg.Image(height=1, width=1, step=3, encoding='bgr8', data=bytes(3))\n"
    "cv_bridge.CvBridge().imgmsg_to_cv2(m, 'rgb8')",
}
_ANSWER = "alocc doctor: "
_TRY = f"""
import json, sys
for code in json.loads(sys.argv[1]).values():
    problem = ""
    try:
        exec(code)
    except Exception as error:
        problem = f"{{type(error).__name__}}: {{' '.join(str(error).split())[:150]}}"
    print({_ANSWER!r} + json.dumps(problem), flush=True)
"""
_PATIENCE = 60.0  # s for a child; on a busy machine an import takes its time
_RELEASES = {3: "Humble", 4: "Iron", 7: "Jazzy", 9: "Kilted"}  # by rclpy's major version


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--node", action="store_true", help="exit with 1 if the node cannot run")
    parser.add_argument(
        "--clean", action="store_true", help="free shared memory that killed ROS processes left"
    )
    parser.add_argument(
        "--listen",
        type=float,
        nargs="?",
        const=3.0,
        metavar="S",
        help="also tell what running nodes say for so long: cameras, lost images (3)",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable result")


def run(args: argparse.Namespace) -> int:
    """Prints the table and who can run."""
    if args.clean:
        from alocc_ros.ros.transport import remove_abandoned_segments

        freed = remove_abandoned_segments()
        print(f"{freed / 1e6:.0f} MB of shared memory freed", file=sys.stderr)
    findings = list(examine())
    if args.listen:
        findings += _running(args.listen)
    broken = {f.needed_by for f in findings if not f.ok}
    ready = {"run": "run" not in broken, "node": not broken & {"run", "node"}}
    if args.json:
        print(json.dumps({"ready": ready, "findings": [dataclasses.asdict(f) for f in findings]}))
    else:
        for line in _table(findings):
            print(line)
        for name, who in (("run", "alocc run"), ("node", "the node")):
            print(f"{who + ':':<{_WIDTH}}{'ready' if ready[name] else 'NOT READY'}")
    return 0 if ready["node" if args.node else "run"] else 1


_WIDTH = 20
_FIRST_STATUS = 10.0  # s, the least to wait for the first status of a node


def _table(findings: list[Finding]) -> Iterator[str]:
    # Statuses of nodes have longer names than what is examined here.
    width = max([_WIDTH, *(len(f.subject) + 2 for f in findings)])
    for finding in findings:
        state = "ok" if finding.ok else "MISSING" if finding.needed_by else "-"
        yield f"{finding.subject:<{width}}{state:<9}{finding.found}"
        if finding.remedy:
            yield f"{'':<{width + 9}}> {finding.remedy}"
    yield ""


def examine() -> Iterator[Finding]:
    """Looks at one thing after the other; nothing here raises."""
    for check in (_python, _libraries, _files, _torch, _cuda, _kernels):
        yield check()
    yield from accelerators()
    yield cache()
    yield backend()
    yield _ros()
    yield _middleware()
    yield _standard_messages()
    yield _built_messages("alocc_ros", ("SemanticGrid", "GridInfo", "FrameStatusStamped"))
    yield _built_messages("tf2_msgs", ("TFMessage",))
    problems = _problems(ROS_PYTHON)
    for name in ROS_PYTHON:
        yield _ros_python(name, problems[name])
    yield _transport()
    yield _abandoned()


def _python() -> Finding:
    here = f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}"
    good = sys.version_info >= (3, 10)
    remedy = "" if good else "install Python 3.10 or newer"
    return Finding("python", here, "run", good, remedy)


def _libraries() -> Finding:
    missing = [pip for module, pip in LIBRARIES.items() if not _is_here(module)]
    if missing:
        remedy = _in_checkout("make setup") or f"pip install {' '.join(missing)}"
        return Finding("libraries", f"not installed: {', '.join(missing)}", "run", False, remedy)
    return Finding("libraries", f"all {len(LIBRARIES)} are here", "run")


def _files() -> Finding:
    from alocc_ros.resources import shared_folder

    try:
        places = {shared_folder(name).parent for name in ("models", "config")}
    except AloccError as error:
        return Finding("files", str(error), "run", False, "install alocc_ros again")
    return Finding("files", f"models and presets in {', '.join(map(str, places))}", "run")


def _torch() -> Finding:
    remedy = _in_checkout("make setup") or "pip install alocc_ros[gpu]"
    found = _try(lambda: importlib.import_module("torch").__version__)
    if isinstance(found, Exception):
        return Finding("torch", _words(found), "run", False, remedy)
    return Finding("torch", found, "run")


def _cuda() -> Finding:
    torch = _try(lambda: importlib.import_module("torch"))
    if isinstance(torch, Exception):
        return Finding("CUDA", "not looked for without torch", ok=False)
    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        return Finding("CUDA", f"{torch.version.cuda}, {', '.join(sorted(names))}")
    if Path("/proc/driver/nvidia/version").exists():
        found = f"a GPU driver is here, but torch {torch.__version__} does not use it"
        remedy = _in_checkout("make setup GPU=1") or "pip install --upgrade alocc_ros[gpu]"
        return Finding("CUDA", found, ok=False, remedy=remedy)
    return Finding("CUDA", "no GPU: networks run on the CPU", ok=False)


def _kernels() -> Finding:
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    native = _try(lambda: importlib.import_module("alocc_ros.ops.native"))
    if isinstance(native, Exception):
        return Finding("C kernels", "not looked for without torch", ok=False)
    listener = Listener()
    native.log.addHandler(listener)
    propagates, native.log.propagate = native.log.propagate, False
    try:
        native.library.cache_clear()
        library = native.library()
    finally:
        native.log.removeHandler(listener)
        native.log.propagate = propagates
    if library is not None:
        return Finding("C kernels", f"built, {library._name}")
    if os.environ.get("ALOCC_NATIVE", "1") == "0":
        return Finding("C kernels", "switched off", ok=False, remedy="unset ALOCC_NATIVE")
    words = heard[0].splitlines()[0] if heard else "could not be built"
    remedy = "install a C compiler (Debian: apt-get install gcc)"
    return Finding("C kernels", words, ok=False, remedy=remedy)


def _ros() -> Finding:
    spec = _spec("rclpy")
    if spec is None:
        return Finding("ROS 2", "no rclpy", "node", False, _ros_remedy())
    if problem := _problems(("rclpy",))["rclpy"]:
        found = f"rclpy cannot be imported: {problem}"
        return Finding("ROS 2", found, "node", False, _ros_remedy())
    version = _version("rclpy") or "0 (version unknown)"
    release = os.environ.get("ROS_DISTRO") or _RELEASES.get(int(version.partition(".")[0]), "")
    source = "Python wheels" if _version("ros-rclpy") else str(Path(spec.origin or "").parent)
    found = f"{release.capitalize() or 'unknown release'}, rclpy {version} from {source}"
    return Finding("ROS 2", found, "node")


def _middleware() -> Finding:
    if _spec("rclpy") is None:
        return Finding("middleware", "not looked for without rclpy", ok=False)
    works, words = _in_child(
        "from rclpy.utilities import get_rmw_implementation_identifier as rmw; print(rmw())"
    )
    if not works:
        asked = os.environ.get("RMW_IMPLEMENTATION")
        remedy = f"unset RMW_IMPLEMENTATION, or install {asked}" if asked else _ros_remedy()
        return Finding("middleware", words, "node", False, remedy)
    return Finding("middleware", words, "node")


def _standard_messages() -> Finding:
    missing = [name for name in STANDARD_MESSAGES if not _is_here(name)]
    if missing:
        found = f"not installed: {', '.join(missing)}"
        return Finding("standard messages", found, "node", False, _ros_remedy())
    broken = {name: text for name, text in _problems(_messages()).items() if text}
    if broken:
        found = "; ".join(f"{name} cannot be imported: {text}" for name, text in broken.items())
        return Finding("standard messages", found, "node", False, _ros_remedy())
    return Finding("standard messages", f"all {len(STANDARD_MESSAGES)} packages are here", "node")


def _built_messages(package: str, names: tuple[str, ...]) -> Finding:
    """That the classes exist and their compiled halves load."""
    subject = f"{package} messages" if package == "alocc_ros" else package
    spec = _spec(f"{package}.msg")
    if spec is None or spec.origin is None:
        remedy = _ros_remedy(build=package == "alocc_ros")
        return Finding(subject, "not built", "node", False, remedy)
    if _spec("rclpy") is not None:
        works, words = _in_child(
            f"from {package}.msg import {', '.join(names)}\n"
            "from rclpy.type_support import check_for_type_support\n"
            f"for kind in ({', '.join(names)},): check_for_type_support(kind)",
            RMW_IMPLEMENTATION="",
        )
        if not works:
            remedy = _ros_remedy(build=package == "alocc_ros")
            return Finding(subject, f"broken: {words}", "node", False, remedy)
    return Finding(subject, str(Path(spec.origin).parent), "node")


def _messages() -> tuple[str, ...]:
    """The modules of the standard messages; those of std_srvs are services."""
    return tuple(f"{p}.srv" if p.endswith("_srvs") else f"{p}.msg" for p in STANDARD_MESSAGES)


def _ros_python(name: str, problem: str) -> Finding:
    spec = _spec(name)
    if spec is None or spec.origin is None:
        return Finding(name, "not here", "node", False, _ros_remedy())
    kind = "stand-in" if is_standin(spec.origin) else "real"
    found = f"{kind}, {Path(spec.origin).parent}"
    if not problem:
        return Finding(name, found, "node")
    remedy = _ros_remedy()
    if name == "cv_bridge" and (_version("opencv-python-headless") or "").startswith("5"):
        remedy = "pip install 'opencv-python-headless<5'"
    return Finding(name, f"{found}, does not work: {problem}", "node", False, remedy)


def is_standin(origin: str) -> bool:
    """True if a module of that file is one of ros_standins/."""
    return "ros_standins" in Path(origin).parts


def _transport() -> Finding:
    from alocc_ros.ros.transport import decide

    decision = decide()
    where = f" ({decision.profile})" if decision.profile else ""
    ok = not decision.remedy
    return Finding("transport", decision.reason + where, ok=ok, remedy=decision.remedy)


def _abandoned() -> Finding:
    from alocc_ros.ros.transport import SHARED_MEMORY, abandoned_segments, shared_memory_size

    left = sum(s.stat().st_blocks * 512 for s in abandoned_segments()) / 1e6
    size = f"{SHARED_MEMORY}: {(shared_memory_size() or 0) / 1e6:.0f} MB"
    if left < 1.0:
        return Finding("shared memory", size)
    found = f"{size}, {left:.0f} of them left behind by killed processes"
    return Finding("shared memory", found, ok=False, remedy="alocc doctor --clean")


def _running(seconds: float) -> list[Finding]:
    """What nodes of this domain say about themselves."""
    from alocc_ros.ros.status_monitor import statuses

    # Who listens for 3 s means "at once"; on a busy machine discovery alone may take longer.
    heard = statuses(seconds, first_within=max(seconds, _FIRST_STATUS))
    domain = os.environ.get("ROS_DOMAIN_ID") or "0"
    if not heard:
        waited = max(seconds, _FIRST_STATUS)
        found = f"none was heard in {waited:g} s on domain {domain}"
        return [Finding("running node", found, ok=False, remedy="start it on the same domain")]
    # Levels are bytes: OK is the lowest.
    return [Finding(n, s.message, ok=s.level == type(s).OK) for n, s in heard.items()]


def _ros_remedy(build: bool = False) -> str:
    """How to get what ROS lacks here."""
    spec = _spec("rclpy")
    sourced = spec is not None and not Path(spec.origin or "").is_relative_to(sys.prefix)
    if sourced or os.environ.get("AMENT_PREFIX_PATH"):
        if build:
            return "colcon build --packages-select alocc_ros && source install/setup.bash"
        return "rosdep install --from-paths . --ignore-src"
    return _in_checkout("make ros") or "source a ROS 2 installation, or use a source checkout"


def _in_checkout(command: str) -> str:
    """``command`` if its Makefile is at hand, else nothing."""
    root = Path(alocc_ros.__file__).parents[1]
    if not (root / "Makefile").is_file() or not (root / "package.xml").is_file():
        return ""
    return command if Path.cwd() == root else f"cd {root} && {command}"


def _try(function: Callable[[], object]) -> object:
    """What ``function`` returns, or what it raises: a diagnosis goes on."""
    try:
        return function()
    except Exception as error:
        return error


def _in_child(code: str, **change: str) -> tuple[bool, str]:
    """Runs ``code`` elsewhere: rcl ends the whole process if the middleware is not right."""
    done = _child(code, **change)
    return done is not None and done.returncode == 0, _last_words(done)


def _child(code: str, *arguments: str, **change: str) -> subprocess.CompletedProcess[str] | None:
    """What another process of this Python made of ``code``; None: nothing, in all that time."""
    path = os.pathsep.join(p for p in sys.path if p)
    try:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, "PYTHONPATH": path, **change},
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return None


def _last_words(done: subprocess.CompletedProcess[str] | None) -> str:
    if done is None:
        return f"no answer within {_PATIENCE:.0f} s"
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(_ANSWER)]
    # A line of ROS's log: "[ERROR] [1795443064.11] [rcl]: why"
    words = re.sub(r"^\[\w+\] \[[\d.]+\] \[\w+\]: ", "", lines[-1] if lines else "")
    how = f"ended by signal {-done.returncode}" if done.returncode < 0 else ""
    return words[:200] or how or f"exit code {done.returncode}"


def _problems(modules: Sequence[str]) -> dict[str, str]:
    """Why modules cannot be used, by name; "" if they can.

    They are really imported, elsewhere: what is compiled for another Python or lacks a library is
    found all the same, and may end the process that tries.
    """
    problems = {module: "" for module in modules if not _is_here(module)}  # told by others
    left = [module for module in modules if module not in problems]
    while left:
        probes = {module: _PROBES.get(module, f"import {module}") for module in left}
        done = _child(_TRY, json.dumps(probes))
        told = done.stdout.splitlines() if done else []
        answers = [line.removeprefix(_ANSWER) for line in told if line.startswith(_ANSWER)]
        problems |= zip(left, map(json.loads, answers), strict=False)
        left = left[len(answers) :]
        if left:  # the next one ended the child
            problems[left.pop(0)] = _last_words(done)
    return problems


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:150] or type(error).__name__


def _spec(module: str) -> importlib.machinery.ModuleSpec | None:
    found = _try(lambda: find_spec(module))
    return None if isinstance(found, Exception) else found


def _is_here(module: str) -> bool:
    return _spec(module) is not None


def _version(distribution: str) -> str | None:
    found = _try(lambda: importlib.metadata.version(distribution))
    return None if isinstance(found, Exception) else found
