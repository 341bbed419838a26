# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node `anomaly_node`: camera images in, labels, anomaly score and obstacles out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleNodeMixin, TransitionCallbackReturn
from rclpy.node import Node

from road_anomaly_ros.perception import PipelineConfig, PipelineError
from road_anomaly_ros.perception.parameter_file import NODE
from road_anomaly_ros.perception.resources import is_out_of_memory, untraced
from road_anomaly_ros.remarks import one_line
from road_anomaly_ros.ros import health, outputs, sim_time
from road_anomaly_ros.ros.camera import Camera, check_names
from road_anomaly_ros.ros.engine import Engine, NotLoaded, OutOfMemory
from road_anomaly_ros.ros.mounting import Transforms
from road_anomaly_ros.ros.parameters import NodeOptions, Parameters
from road_anomaly_ros.ros.worker import Frame, Worker
from road_anomaly_ros.tools.results import OVERLAY

_FIXABLE = (ValueError, TypeError, PipelineError, OSError, ImportError)
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class AnomalyNode(LifecycleNode):
    """Runs the pipeline on the newest frames of its cameras.

    Parameters, transitions and diagnostics are answered while a frame is computed: subscriptions
    only store the newest frame, and one thread of the node's own works on it. Raises ValueError
    or TypeError when a parameter given at start is wrong.
    """

    def __init__(self, *, engine: Engine | None = None, **node_arguments: Any) -> None:
        self._settings: Any = None
        self._transitions = MutuallyExclusiveCallbackGroup()
        Node.__init__(self, NODE, **node_arguments)
        # Not LifecycleNode's own: a model that loads would block parameters and diagnostics.
        LifecycleNodeMixin.__init__(self, callback_group=self._transitions)
        self._images = MutuallyExclusiveCallbackGroup()
        self._engine = engine or Engine()
        self._cameras: dict[str, Camera] = {}
        self._transforms: Transforms | None = None
        self._worker: Worker | None = None
        self._phase = 'unconfigured'
        self._fault = ''
        self._stages = health.StageTimes()
        self._calibrated = health.Calibrated()
        self._throttle = health.Throttle()
        self._locked = False
        self._settings = Parameters(
            self, check=self._engine.check, apply=self._apply, locked=lambda: self._locked
        )
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)  # ticks when /clock does not
        self._health_publisher = self.create_publisher(DiagnosticArray, health.TOPIC, 10)
        self.create_timer(health.PERIOD_S, self._report, clock=self._steady)
        if self._settings.options.autostart:
            self._soon(self._autostart)

    def get_parameter(self, name: str) -> Any:
        """Return a parameter; asking for an option by its name declares it."""
        self._name(name)
        return super().get_parameter(name)

    def get_parameter_type(self, name: str) -> Any:
        """Return the type of a parameter; see `get_parameter`."""
        self._name(name)
        return super().get_parameter_type(name)

    def describe_parameter(self, name: str) -> Any:
        """Return the description of a parameter; see `get_parameter`."""
        self._name(name)
        return super().describe_parameter(name)

    def _name(self, parameter: str) -> None:
        if self._settings is not None:  # Node.__init__ asks for parameters of its own
            self._settings.declare([parameter])

    @property
    def cameras(self) -> dict[str, Camera]:
        """The cameras by name; empty while unconfigured."""
        return self._cameras

    def _soon(self, action: Callable[[], None]) -> None:
        """Run `action` once, in turn with the transitions that others ask for."""

        def run() -> None:
            timer.cancel()
            action()

        timer = self.create_timer(0.0, run, callback_group=self._transitions, clock=self._steady)

    def _autostart(self) -> None:
        if self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def _apply(self, config: PipelineConfig, options: NodeOptions) -> None:
        self._engine.fallback_to_cpu = options.fallback_to_cpu
        self._engine.reconfigure(config)

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        """Check the settings, load the model, run one frame; FAILURE for what one can mend."""
        self._locked = True
        self._phase, self._fault = 'loading', ''
        try:
            self._configure()
        except _FIXABLE as error:
            return self._refuse(one_line(error))
        except Exception as error:
            if is_out_of_memory(error):
                return self._refuse(f'the device has no memory for the model: {one_line(error)}')
            return self._break_off('configure', error)
        self._phase = 'inactive'
        return super().on_configure(state)

    def _configure(self) -> None:
        config, options = self._settings.config, self._settings.options
        check_names(options.cameras)
        self.get_logger().info(
            f'loading model {config.model} ({config.segmenter}); the first start compiles as well'
        )
        self._engine.fallback_to_cpu = options.fallback_to_cpu
        self._engine.keep_stages = options.debug_topics
        self._engine.load(config)
        if self._settings.config is not config:  # set while the model was loaded
            self._engine.check(self._settings.config)
            self._engine.reconfigure(self._settings.config)
        pipeline = self._engine.pipeline
        self._stages, self._calibrated = health.StageTimes(), health.Calibrated()
        self._transforms = Transforms(self)
        make = functools.partial(
            Camera,
            self,
            transport=options.image_transport,
            group=self._images,
            tolerance=options.anomaly_tolerance if pipeline.needs_anomaly else None,
            debug=options.debug_topics,
            reliability=options.reliability,
            depth=config.options('geometry').use_depth,
            transforms=self._transforms,
        )
        for name in options.cameras or ('',):
            self._cameras[name] = make(name)
        self._show_parameters()
        self.get_logger().info(
            f'model {config.model} on {pipeline.device}, '
            f'{len(pipeline.labels)} classes, scorer {pipeline.chain.scorer}'
        )
        given, used = pipeline.config.as_dict(), pipeline.chain.as_dict()
        measured = ', '.join(f'{name} {used[name]}' for name in used if name not in given)
        if measured:  # the parameters of these names show their defaults
            self.get_logger().info(
                f'parameters at their default leave these to the calibration: {measured}; '
                'what is set while the node runs counts'
            )
        for package, topics in outputs.missing().items():
            self.get_logger().info(f'without {package}, not installed: no {", ".join(topics)}')

    def _refuse(self, reason: str) -> TransitionCallbackReturn:
        self._release()
        self._fault = reason
        self.get_logger().error(f'cannot configure: {reason}')
        return FAILURE

    def _break_off(self, what: str, error: Exception) -> TransitionCallbackReturn:
        self._fault = f'cannot {what}: {type(error).__name__}: {one_line(error)}'
        self.get_logger().error(self._fault)
        return TransitionCallbackReturn.ERROR

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        """Subscribe and start to work."""
        result = super().on_activate(state)
        try:
            self._activate()
        except Exception as error:  # a QoS override that does not exist, for example
            return self._break_off('activate', error)
        self._phase = 'active'
        self._say_active()
        return result

    def _say_active(self) -> None:
        heard = '; '.join(camera.listens for camera in self._cameras.values())
        seen = ', '.join(
            self.resolve_topic_name(outputs.topic_name(name, OVERLAY)) for name in self._cameras
        )
        self.get_logger().info(f'active: listens to {heard}; see {seen} and {health.TOPIC}')

    def _activate(self) -> None:
        self._worker = Worker(self._process, lambda: self._settings.options.max_batch)
        self._worker.start()
        stamp = self.get_clock().now().to_msg()
        for camera in self._cameras.values():
            camera.announce(self._engine.pipeline.labels, stamp)
            camera.subscribe(self._worker.frames)

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        """Stop listening and wait for the frames in flight: their results are still sent."""
        self._stop()
        self._phase = 'inactive'
        if self._engine.loaded:  # else the device gave up, which was told
            self.get_logger().info('inactive: listens to nothing, the model stays loaded')
        return super().on_deactivate(state)

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        """Let go of the model, the device and all topics."""
        result = super().on_cleanup(state)
        self._release()
        return result

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        """Wait for the frames in flight and let go of everything."""
        self._stop()
        result = super().on_shutdown(state)
        self._release()
        self._phase = 'finalized'
        return result

    def on_error(self, state: Any) -> TransitionCallbackReturn:
        """Let go of everything; the node can be configured again."""
        self._release()
        return SUCCESS

    def close(self) -> None:
        """End from whatever state; called when no callback runs any more."""
        if self._phase != 'finalized':
            self.trigger_shutdown()

    def destroy_node(self) -> None:
        """End for whoever composes the node and does not call `close`."""
        self._release()
        super().destroy_node()

    def _stop(self) -> None:
        for camera in self._cameras.values():
            camera.unsubscribe()
        worker, self._worker = self._worker, None
        for frame in worker.stop() if worker else ():
            self._cameras[frame.camera].stats.dropped += 1

    def _release(self) -> None:
        self._stop()
        cameras, self._cameras = self._cameras, {}
        for camera in cameras.values():
            camera.destroy()
        if self._transforms is not None:
            self._transforms.close()
        self._calibrated = health.Calibrated()  # knows parts of the chain
        self._engine.release()
        self._phase = 'unconfigured'
        self._locked = False

    def _process(self, frames: list[Frame]) -> None:
        """Take the newest frames through the chain; nothing that goes wrong ends the thread."""
        inputs = [(frame, self._inputs(frame)) for frame in frames]
        usable = [(frame, parts) for frame, parts in inputs if parts is not None]
        try:
            if usable:
                self._compute(usable)
        except NotLoaded:  # on the way to 'unconfigured', for a reason that was told
            for frame, _ in usable:
                self._cameras[frame.camera].stats.dropped += 1
        except Exception as error:
            for frame, _ in usable:
                self._cameras[frame.camera].fail(one_line(error))

    def _inputs(self, frame: Frame) -> tuple[Any, ...] | None:
        camera = self._cameras[frame.camera]
        try:
            return camera.to_inputs(frame, self._settings.options.max_pixels)
        except Exception as error:
            camera.fail(one_line(error))
            return None

    def _compute(self, usable: list[tuple[Frame, tuple[Any, ...]]]) -> None:
        fault = None
        try:
            chain, results = self._engine.run(*zip(*(parts for _, parts in usable), strict=True))
        except OutOfMemory as error:
            chain, results, fault = error.chain, error.results, untraced(error)
        pipeline = self._engine.pipeline
        if pipeline is not None:
            self._calibrated.follow(pipeline.prepared)
        refused = self._engine.refused
        if refused and self._throttle.ready('settings'):
            self.get_logger().warning(refused)
        for (frame, _), result in zip(usable, results, strict=False):
            self._finish(frame, result, chain)
        if fault is not None:
            self._give_up([frame for frame, _ in usable[len(results) :]], one_line(fault))

    def _finish(self, frame: Frame, result: Any, chain: PipelineConfig) -> None:
        camera = self._cameras[frame.camera]
        if isinstance(result, Exception):  # not raised: its trace would hold the frame
            camera.fail(one_line(result))
            return
        try:
            camera.publish(frame, result, chain, self._settings.options.jpeg_quality)
        except Exception as error:
            camera.fail(one_line(error))
            return
        self._stages.add(result.timings, result.notes)
        if result.stamp is not None:
            self._calibrated.add(frame.camera, result, result.stamp)
        for note in result.notes:
            if self._throttle.ready(health.kind_of(note)):
                self.get_logger().warning(note)

    def _give_up(self, frames: list[Frame], reason: str) -> None:
        """Reach a clear state after a fault of the device: unconfigured, with the reason shown."""
        for frame in frames:
            self._cameras[frame.camera].stats.failed += 1
        self.get_logger().error(reason)
        self._fault = reason
        self._soon(self._retire)

    def _retire(self) -> None:
        if self._engine.loaded:  # configured anew meanwhile
            return
        if self._phase == 'active':
            self.trigger_deactivate()
        if self._phase == 'inactive':
            self.trigger_cleanup()

    def _show_parameters(self) -> None:
        """Declare what concerns the chain, once 'auto' is decided, and what is listened to."""
        pipeline = self._engine.pipeline
        metres = any(camera.publishers.wants_metres for camera in list(self._cameras.values()))
        chain = self._settings.config if pipeline is None else pipeline.chain
        self._settings.show(chain, *(('geometry',) if metres else ()))

    def _report(self) -> None:
        """Publish the state of the node and of every camera."""
        self._show_parameters()
        name = self.get_fully_qualified_name()
        rows = [self._node_row(name)]
        allowed = self._settings.options.stale_after
        config = self._settings.config
        for camera in list(self._cameras.values()):
            active = self._phase == 'active'
            camera.review()
            silent = camera.silence(allowed) if active else ''
            camera.warn_silence(silent)
            level, message = health.camera_status(
                camera.stats, active=active, silent=silent, waiting=camera.waiting()
            )
            geometry = camera.geometry.values(config.options('geometry', camera.name))
            rows.append(
                health.status(
                    f'{name}: {camera.title}',
                    level,
                    message,
                    {**health.camera_values(camera.stats), **geometry},
                    camera.image_topic,
                )
            )
        self._health_publisher.publish(health.report(self.get_clock().now().to_msg(), rows))

    def _node_row(self, name: str) -> DiagnosticStatus:
        pipeline = self._engine.pipeline
        values = {'state': self._phase, 'recoveries': self._engine.recoveries}
        if pipeline is not None:
            chain = pipeline.chain
            values.update(
                model=chain.model,
                device=str(pipeline.device),
                scorer=chain.scorer,
                refinements=', '.join(chain.refinements) or 'none',
            )
        if pipeline is not None and pipeline.resources.faults:
            values['device_faults'] = '; '.join(
                f'{kernel}: {text}' for kernel, text in pipeline.resources.faults.items()
            )
        values.update(self._calibrated.values())
        values.update(self._stages.values())
        values.update(health.memory_values(pipeline.device if pipeline else None))
        level, message = self._verdict()
        return health.status(f'{name}: chain', level, message, values, NODE)

    def _verdict(self) -> tuple[bytes, str]:
        timeless = sim_time.missing(self)
        if timeless and self._throttle.ready('clock'):
            self.get_logger().warning(timeless)
        if self._fault:
            return health.ERROR, self._fault
        notes = [timeless] if timeless else []
        if self._phase == 'active':
            notes += [*self._calibrated.warnings(), *self._stages.notes()]
            notes += [self._engine.refused] if self._engine.refused else []
        return (health.WARN, '; '.join(notes)) if notes else (health.OK, self._phase)
