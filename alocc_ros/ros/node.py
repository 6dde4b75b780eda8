# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc_node``: cameras and ego poses in, occupancy and flow out, as a lifecycle node.

================  ==========================================  ===========================
state             what happens                                what it holds
================  ==========================================  ===========================
unconfigured      parameters can be changed                   nothing
inactive          the model is loaded, topics are announced   the network in main memory
active            subscribes, computes, publishes             the network on its device
================  ==========================================  ===========================

Three parties never wait for each other: the executor receives and collects, the worker
computes and publishes, timers report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger
from tf2_ros import Buffer

from alocc_ros.errors import AloccError, ParameterError
from alocc_ros.ros.cameras import LiveCameras, ahead, check_image
from alocc_ros.ros.diagnostics import Diagnostics
from alocc_ros.ros.encoder import time
from alocc_ros.ros.inputs import Inputs
from alocc_ros.ros.model import Model, load
from alocc_ros.ros.outputs import Outputs
from alocc_ros.ros.parameters import DeclaredParameters, NodeParameters
from alocc_ros.ros.poses import LivePoses
from alocc_ros.ros.topics import clock_problems
from alocc_ros.ros.worker import Worker
from alocc_ros.stream.assembler import FrameAssembler
from alocc_ros.stream.preset import Preset, load_preset
from alocc_ros.stream.rig import RigCamera, load_rig
from alocc_ros.stream.skips import Skips

# Service under ~/, type, effect; the documentation is made of it.
SERVICES = (
    ("reset", Trigger, "forgets the past; the next set begins a sequence"),
    ("enable", SetBool, "false: sets are ignored until it is true again"),
)
_POLL_PERIOD = 0.02  # s, how exactly the timeout of a set is kept
_SCAN_PERIOD = 0.5  # s
# s for the set at work when the program ends: a launch file kills after 5 s, and what is killed
# leaves its shared memory behind.
_END_TIMEOUT = 3.0
_CLOCK_PATIENCE = 5.0  # s that the player of a bag may need to start
_ERROR_LOG_PERIOD = 5.0  # s between two equal kinds of errors in the log
_RECOVERY_PERIOD = 2.0  # s without a failing callback, after which a failed node starts again

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
ERROR = TransitionCallbackReturn.ERROR


@dataclass
class _Configured:
    """What a configured node has."""

    parameters: NodeParameters
    preset: Preset
    rig: dict[str, RigCamera]
    model: Model
    outputs: Outputs

    @property
    def frame(self) -> str:
        """TF frame of the grid."""
        return self.parameters.grid_frame or self.preset.base_frame


@dataclass
class _Active:
    """What an active node has on top."""

    inputs: Inputs
    poses: LivePoses
    assembler: FrameAssembler
    worker: Worker
    diagnostics: Diagnostics
    timers: list[Any]
    since: float  # time.monotonic


class AloccNode(LifecycleNode):
    """The node; see the module.

    Attributes:
        load_model: makes the network of the parameters; the benchmark puts a tiny one in.
        is_stuck: a worker was left behind at its set; only the end of the process ends it.
    """

    load_model = staticmethod(load)
    is_stuck = False

    def __init__(self, **options: Any) -> None:
        """``options`` as of ``rclpy.lifecycle.LifecycleNode``."""
        super().__init__("alocc_node", **options)
        self._declared = DeclaredParameters(self)
        for name in self._declared.unknown():
            self.get_logger().warning(f"nobody reads the parameter {name}")
        # On the wall's clock: nothing must hang on a bag that is paused.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._buffer = Buffer(node=self)
        self._configured: _Configured | None = None
        self._active: _Active | None = None
        self._problems: list[str] = []
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._report_timer: Any = None
        self._failures: Counter[str] = Counter()
        self._last_failure = 0.0  # monotonic
        self._defect = ""  # the callback that took the node to ErrorProcessing
        self._recovery_timer: Any = None
        answers = {"reset": self._on_reset, "enable": self._on_enable}
        for name, kind, _ in SERVICES:
            self.create_service(kind, f"~/{name}", answers[name])

    def start(self) -> bool:
        """Configures and activates, unless ``auto_start`` leaves it to others; False: failed."""
        if self.get_parameter("auto_start").value is False:
            return True
        return all(step() == SUCCESS for step in (self.trigger_configure, self.trigger_activate))

    # --- parameters ----------------------------------------------------------------------

    def set_parameters(self, parameter_list: list[Parameter]) -> list[SetParametersResult]:
        """Sets one after the other; a result with a reason for each that is refused."""
        return [self.set_parameters_atomically([parameter]) for parameter in parameter_list]

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Sets all or none; before rclpy, which raises at names that it does not know."""
        if reason := self._declared.refusal(parameter_list):
            return SetParametersResult(successful=False, reason=reason)
        return super().set_parameters_atomically(parameter_list)

    def _take_over(self, parameters: NodeParameters) -> None:
        """Those that are live, while the node is configured."""
        configured, active = self._configured, self._active
        configured.parameters = parameters
        configured.model.take_over(parameters)
        configured.outputs.take_over(parameters, configured.frame, is_active=active is not None)
        self._report_timer.timer_period_ns = round(parameters.diagnostics_period * 1e9)
        if active is None:
            return
        active.inputs.take_over(parameters)
        active.assembler.change(min_cameras=parameters.min_cameras, timeout=parameters.tf_timeout)
        active.diagnostics.stale_after = parameters.stale_after

    # --- transitions ---------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Checks everything that can be checked, and loads the model."""
        begin = monotonic()
        self._end_recovery()
        try:
            parameters = self._declared.read()
            preset, rig, model = self._load(parameters)
            outputs = Outputs(self, parameters, preset.used_cameras)
        except AloccError as error:
            self.get_logger().error(f"cannot configure: {error}")
            return FAILURE
        self._configured = _Configured(parameters, preset, rig, model, outputs)
        self._declared.on_change = self._take_over
        self._report_timer = self._every(parameters.diagnostics_period, self._report)
        weights = "RANDOM WEIGHTS" if not model.weights_sha256 else model.weights_sha256[:12]
        self.get_logger().info(
            f"configured: {model.record.name} ({weights}) on {model.device}, preset "
            f"{preset.name}, {monotonic() - begin:.1f} s"
        )
        for remark in model.remarks:
            self.get_logger().info(remark)
        return SUCCESS

    def _load(self, parameters: NodeParameters) -> tuple[Preset, dict[str, RigCamera], Model]:
        """What the parameters name.

        Raises:
            ParameterError: with everything that is not to be had.
        """
        problems = []
        try:
            preset = load_preset(parameters.preset)
            file = Path(parameters.calibration_file or preset.calibration_file or "")
            rig = load_rig(file, preset.is_rectified) if file.name else {}
        except AloccError as error:
            problems.append(str(error))
        try:
            model = self.load_model(parameters)
        except AloccError as error:
            problems.append(str(error))
        if problems:
            raise ParameterError("; ".join(problems))
        return preset, rig, model

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Puts the network on its device and subscribes."""
        done = super().on_activate(state)  # publishers
        configured = self._configured
        parameters, preset = configured.parameters, configured.preset
        try:
            pipeline = configured.model.start()
            pipeline.preprocessor.say = self.get_logger().warning
        except (AloccError, RuntimeError) as error:  # no engine, no memory left on the device
            self.get_logger().error(f"cannot activate: {error}")
            super().on_deactivate(state)
            return FAILURE
        runs = configured.model.runs()
        self.get_logger().info(
            f"the network runs on {pipeline.runner.device}: "
            + ", ".join(f"{name} {value}" for name, value in runs.items())
        )
        skips = Skips(self.get_logger().warning)
        inputs = Inputs(self, preset, parameters, configured.rig, skips)
        poses = LivePoses(self, preset, self._buffer, skips)
        assembler = FrameAssembler(
            preset,
            poses,
            LiveCameras(inputs.cameras),
            configured.rig,
            min_cameras=parameters.min_cameras,
            grid_frame=parameters.grid_frame,
            timeout=parameters.tf_timeout,
            check_image=check_image,
        )
        outputs = configured.outputs

        worker = Worker(
            pipeline,
            assembler.assemble,
            outputs.publish,
            now=self._now,
            report_error=self._report_error,
            skips=skips,
            calibrate=ahead(assembler) if parameters.early else None,
            foresee=assembler.pose_ahead,
        )
        outputs.cameras, outputs.locate = inputs.cameras, poses.T_base
        inputs.collector.registerCallback(worker.submit)
        inputs.on_image = worker.offer
        timers = [self._every(_POLL_PERIOD, inputs.poll), self._every(_SCAN_PERIOD, self._scan)]
        now = monotonic()
        diagnostics = Diagnostics(self.get_fully_qualified_name(), parameters.stale_after, now)
        self._active = _Active(inputs, poses, assembler, worker, diagnostics, timers, now)
        model = configured.model
        outputs.announce(model.record, model.weights_sha256, configured.frame)
        return done

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribes, waits for the worker, and frees the device."""
        self._configured.outputs.clear(self._configured.frame)
        self._stop()
        done = super().on_deactivate(state)
        return ERROR if self._defect else done

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forgets the model."""
        self._forget()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """From any state."""
        self._stop()
        self._forget()
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a defect: unconfigured, and /diagnostics goes on saying why.

        A node that starts by itself also starts again by itself; others are left to whoever
        manages them.
        """
        self._stop()
        self._forget()
        self._recovery_timer = self._every(_RECOVERY_PERIOD / 2, self._recover)
        return SUCCESS

    def destroy_node(self) -> None:
        """Ends the worker, whatever the state; does not wait long for it."""
        self._stop(_END_TIMEOUT)
        self._forget()
        self._end_recovery()
        super().destroy_node()

    def _stop(self, *timeout: float) -> None:
        active, self._active = self._active, None
        if active is None:
            return
        for timer in active.timers:
            self.destroy_timer(timer)
        active.inputs.close()
        active.poses.close()
        if not active.worker.stop(*timeout):
            self.get_logger().warning("the network is still at a set, which is given up")
            self.is_stuck = True
            return
        self._configured.outputs.finish()
        del active  # and with it the last others who have the pipeline
        self._configured.model.stop()

    def _forget(self) -> None:
        configured, self._configured = self._configured, None
        self._declared.on_change = None
        if configured is None:
            return
        self.destroy_timer(self._report_timer)
        configured.outputs.destroy()

    # --- when callbacks fail -------------------------------------------------------------

    def report_failure(self, what: str, story: str) -> None:
        """Of any callback: counted, logged, in /diagnostics; the node goes on.

        Args:
            what: callback and kind of error.
            story: with the traceback.
        """
        self._failures[what] += 1
        self._last_failure = monotonic()
        self._report_error(f"a callback failed, the node goes on: {story}")

    def fail(self, callback: str) -> None:
        """What a callback that always fails does to an active node: to ErrorProcessing."""
        if self._active is None:
            return
        self._defect = callback
        self.get_logger().error(f"the callback of {callback} fails always: the node is stopped")
        self.trigger_deactivate()

    def _recover(self) -> None:
        self._report()
        auto_start = self.get_parameter("auto_start").value is not False
        if auto_start and monotonic() > self._last_failure + _RECOVERY_PERIOD:
            self.get_logger().info("no callback has failed since: the node starts again")
            self.start()

    def _end_recovery(self) -> None:
        self._defect = ""
        if self._recovery_timer is not None:
            self.destroy_timer(self._recovery_timer)
            self._recovery_timer = None

    # --- at work -------------------------------------------------------------------------

    def _scan(self) -> None:
        # Poses first: a player may begin as soon as somebody wants its images.
        problems = self._active.poses.problems()
        self._active.inputs.scan()
        self._configured.outputs.catch_up()
        if monotonic() > self._active.since + _CLOCK_PATIENCE:
            problems += clock_problems(self)
        for problem in problems:
            if problem not in self._problems:
                self.get_logger().error(problem)
        self._problems = problems

    def _report(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = time(self._now())
        if self._active is None:
            name = self.get_fully_qualified_name()
            defect = f"the callback of {self._defect} fails always" if self._defect else ""
            message.status = Diagnostics(name, 0.0, 0.0).inactive(
                "inactive" if self._configured else "unconfigured", defect, self._failures
            )
        else:
            active = self._active
            message.status = active.diagnostics.statuses(
                cameras=active.inputs.cameras,
                rejections=active.assembler.rejections,
                collector=active.inputs.collector.statistics,
                worker=active.worker.statistics,
                problems=self._problems,
                failures=self._failures,
                device_memory=self._configured.model.device_memory(),
                runs=self._configured.model.runs(),
                now=monotonic(),
            )
        self._diagnostics.publish(message)

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._active is not None
        if self._active is not None:
            self._active.inputs.collector.reset()
            self._active.worker.reset()
        response.message = (
            "the past is forgotten: the next set begins a sequence"
            if response.success
            else self._not_active()
        )
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        response.success = self._active is not None
        if self._active is not None:
            self._active.worker.enabled = request.data
        response.message = (
            self._not_active()
            if not response.success
            else "sets go to the network"
            if request.data
            else "sets are ignored until the service is called with true"
        )
        return response

    def _not_active(self) -> str:
        state = "inactive" if self._configured else "unconfigured"
        step = "activate" if self._configured else "configure"
        name = self.get_fully_qualified_name()
        return f"the node is {state}, not active: ros2 lifecycle set {name} {step}"

    def _report_error(self, text: str) -> None:
        self.get_logger().error(text, throttle_duration_sec=_ERROR_LOG_PERIOD)

    def _every(self, period: float, callback: Callable[[], None]) -> Any:
        return self.create_timer(period, callback, clock=self._steady)

    def _now(self) -> int:
        return self.get_clock().now().nanoseconds
