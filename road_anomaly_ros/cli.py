# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The command `road-anomaly`: finds the chosen sub-command and imports that one only.

A command module offers `add_arguments(parser)`, `main(arguments) -> exit code`, a docstring that
becomes its help, and `EXAMPLES`, shown below the options. It imports torch inside `main`, so that
every `--help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import io
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

from road_anomaly_ros import __version__, remarks
from road_anomaly_ros.files import home
from road_anomaly_ros.tools.flow import StopOnSignal

PROGRAM = 'road-anomaly'
PACKAGE = 'road_anomaly_ros'
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


class Command(NamedTuple):
    """One row of the table: the words a person types, the module behind them, a line of help."""

    name: str
    module: str
    text: str


COMMANDS = (
    Command(
        'demo',
        'road_anomaly_ros.commands.demo',
        'watch the whole chain work on a rendered drive or on your own footage',
    ),
    Command(
        'run',
        'road_anomaly_ros.commands.run',
        'process a video, an image, a folder or a bag, no frame dropped',
    ),
    Command(
        'replay',
        'road_anomaly_ros.ros.replay',
        'publish a video, a folder or a bag as camera messages',
    ),
    Command(
        'record',
        'road_anomaly_ros.ros.record',
        'store topics in a rosbag2 without a ROS distribution',
    ),
    Command(
        'train segmenter',
        'road_anomaly_ros.commands.train_segmenter',
        'train a segmentation model of your own',
    ),
    Command(
        'train head',
        'road_anomaly_ros.commands.train_head',
        'train an anomaly head on top of a frozen segmenter',
    ),
    Command(
        'export',
        'road_anomaly_ros.commands.export',
        'write the graph by which onnxruntime computes a model faster',
    ),
    Command(
        'synthesize',
        'road_anomaly_ros.commands.synthesize',
        'paste objects on road scenes, with exact ground truth',
    ),
    Command(
        'evaluate', 'road_anomaly_ros.commands.evaluate', 'measure methods on labelled data sets'
    ),
    Command(
        'sweep',
        'road_anomaly_ros.commands.sweep',
        'search the options of a method for the best figures',
    ),
    Command(
        'calibrate',
        'road_anomaly_ros.commands.calibrate',
        'measure thresholds and display ranges for a model',
    ),
    Command(
        'report',
        'road_anomaly_ros.commands.report',
        'turn results into a page with tables, curves and pictures',
    ),
    Command(
        'benchmark',
        'road_anomaly_ros.commands.benchmark',
        'measure all methods on pasted objects and renew the accuracy table',
    ),
    Command(
        'reproduce',
        'road_anomaly_ros.commands.reproduce',
        'measure a table of the papers and print ours beside the printed cells',
    ),
    Command(
        'explain',
        'road_anomaly_ros.commands.explain',
        'show why a pixel or an obstacle got its score',
    ),
    Command(
        'mine report',
        'road_anomaly_ros.fleet.mine_report',
        'make a page of the strangest events of an archive',
    ),
    Command(
        'mine export',
        'road_anomaly_ros.fleet.mine_export',
        'cut clips around the strangest events of an archive',
    ),
    Command(
        'mine',
        'road_anomaly_ros.fleet.mine',
        'find what is strange in thousands of videos, bags and image folders',
    ),
    Command(
        'bench --node',
        'road_anomaly_ros.ros.bench_node',
        'measure the ROS node: rate and age of results, processor, memory, transport',
    ),
    Command(
        'bench --metrics',
        'road_anomaly_ros.commands.bench_metrics',
        'measure how many images per second the metrics take in',
    ),
    Command(
        'bench --engines',
        'road_anomaly_ros.commands.bench_engines',
        'measure how fast and how exactly each engine computes networks of common sizes',
    ),
    Command(
        'bench --gpu',
        'road_anomaly_ros.commands.bench_gpu',
        'measure whole chains with networks of published size on a GPU',
    ),
    Command(
        'bench',
        'road_anomaly_ros.commands.bench',
        'measure time and memory of every stage on this machine',
    ),
)


class CommandError(ValueError):
    """The words typed do not name a command, or its options are wrong; the message is one line."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and whose help keeps the line breaks of the examples."""

    def __init__(self, prog: str, description: str, epilog: str = '') -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog or None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raise the complaint with the way to the help, for `main` to print."""
        raise CommandError(f"{message}; see '{self.prog} --help'")


def available(commands: Sequence[Command] = COMMANDS) -> list[Command]:
    """Return the commands whose modules exist in this installation, without importing them."""
    return [command for command in commands if _exists(command.module)]


def select(words: Sequence[str], commands: Sequence[Command]) -> tuple[Command, list[str]]:
    """Split typed words into the command they name and the arguments left for it.

    Raises CommandError, naming the known commands, when they name none.
    """
    for command in commands:
        parts = command.name.split()
        if list(words[: len(parts)]) == parts:
            return command, list(words[len(parts) :])
    members = [command.name.split()[1] for command in _group(words[0], commands)]
    if not members:
        known = list(dict.fromkeys(command.name.split()[0] for command in commands))
        raise CommandError(f'unknown command {words[0]!r}; choose one of {known}')
    came = f', got {words[1]!r}' if len(words) > 1 else ''
    raise CommandError(f'{words[0]}: expected one of {members} as next word{came}')


def main(argv: Sequence[str] | None = None) -> int:
    """Run `road-anomaly` with `argv` (without the program's name) and return its exit code.

    0 success, 2 wrong input (one line on stderr), 128 + the signal that interrupted it; else what
    the command returns. A second signal ends it at once.
    """
    with StopOnSignal(interrupt=True) as stop:
        code = _run(argv)
    return 128 + stop.signal if stop.signal and code == EXIT_INTERRUPTED else code


def _run(argv: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    remarks.speak_as(PROGRAM)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files need not be what it can show
            stream.reconfigure(errors='backslashreplace')
    first = next((i for i, word in enumerate(words) if not word.startswith('-')), len(words))
    commands = available()
    parser = _top_parser(commands)
    options = argparse.Namespace(traceback=False)
    try:
        parser.parse_args(words[:first], options)
        if first == len(words):
            parser.print_help()
            return EXIT_BAD_INPUT
        return _dispatch(words[first:], commands)
    except KeyboardInterrupt:
        return _fail('interrupted', EXIT_INTERRUPTED)
    except Exception as error:
        if options.traceback or not _is_expected(error):
            raise
        return _fail(_told(error), EXIT_BAD_INPUT)


def _dispatch(words: Sequence[str], commands: Sequence[Command]) -> int:
    members = [] if _is_alone(words[0], commands) else _group(words[0], commands)
    if members and list(words[1:]) in (['-h'], ['--help']):
        Parser(f'{PROGRAM} {words[0]}', f'commands:\n{_table(members)}').print_help()
        return 0
    command, rest = select(words, commands)
    module = importlib.import_module(command.module)
    arguments = command_parser(command, module).parse_args(rest)
    for name, value in vars(arguments).items():
        setattr(arguments, name, _from_home(value))
    return int(module.main(arguments) or 0)


def _from_home(value: Any) -> Any:
    """Expand '~', which a shell leaves alone in --out=~/results and inside of quotes."""
    if isinstance(value, list):
        return [_from_home(item) for item in value]
    if isinstance(value, Path):
        return home(value)
    return os.path.expanduser(value) if isinstance(value, str) else value


def command_parser(command: Command, module: ModuleType) -> Parser:
    """Return the parser of one command: its docstring, its arguments, its examples."""
    examples = textwrap.dedent(getattr(module, 'EXAMPLES', '')).strip('\n')
    parser = Parser(
        f'{PROGRAM} {command.name}', inspect.cleandoc(module.__doc__ or command.text), examples
    )
    module.add_arguments(parser)
    return parser


def _top_parser(commands: Sequence[Command]) -> Parser:
    parser = Parser(
        PROGRAM,
        'Let a vehicle see what should not be on the road.',
        f'commands:\n{_table(commands)}\n\nexamples:\n'
        f'  {PROGRAM} demo\n'
        f'  {PROGRAM} run dashcam.mp4 -o results\n'
        f"\n'{PROGRAM} COMMAND --help' shows the options and examples of a command.",
    )
    parser.usage = f'{PROGRAM} [--version] [--traceback] COMMAND ...'
    parser.add_argument('--version', action='version', version=f'{PROGRAM} {__version__}')
    parser.add_argument(
        '--traceback',
        action='store_true',
        help='show where an error came from, not only its one line',
    )
    return parser


def _table(commands: Sequence[Command]) -> str:
    width = max((len(command.name) for command in commands), default=0)
    return '\n'.join(f'  {command.name:<{width}}  {command.text}' for command in commands)


def _group(word: str, commands: Sequence[Command]) -> list[Command]:
    return [command for command in commands if command.name.startswith(f'{word} ')]


def _is_alone(word: str, commands: Sequence[Command]) -> bool:
    return any(command.name == word for command in commands)


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _is_expected(error: Exception) -> bool:
    """Tell whether a person can mend it, else it is a defect of ours and keeps its traceback."""
    if isinstance(error, ModuleNotFoundError):
        return (error.name or PACKAGE).partition('.')[0] != PACKAGE
    # Importing PipelineError would load torch; while nobody has, it cannot have been raised.
    contract = sys.modules.get(f'{PACKAGE}.perception.contract')
    ours = (contract.PipelineError,) if contract is not None else ()
    return isinstance(error, (ValueError, TypeError, OSError, *ours))


def _told(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return (
            f'this command needs the Python package {error.name!r}, which is not installed; '
            f"for ROS packages source a ROS 2 distribution or pip install '{PACKAGE}[ros]'"
        )
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f'{error.filename}: {error.strerror}'
    return remarks.one_line(error)


def _fail(line: str, code: int) -> int:
    print(f'{PROGRAM}: {line}', file=sys.stderr)
    return code


if __name__ == '__main__':
    sys.exit(main())
