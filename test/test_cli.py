# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The command line: quick help, known words, one-line errors, exit codes."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest
from conftest import ROOT

from road_anomaly_ros import __version__, cli


def run_python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def command(monkeypatch):
    """Install a fake command `fake`, whose main calls what the test hands in."""
    module = types.ModuleType('fake_command', 'Do something.\n\nAt length.')
    module.EXAMPLES = 'examples:\n  road-anomaly fake --size 3'
    module.add_arguments = lambda parser: parser.add_argument('--size', type=int, default=1)
    module.main = lambda arguments: 0
    monkeypatch.setitem(sys.modules, 'fake_command', module)
    rows = (
        cli.Command('fake', 'fake_command', 'a fake'),
        cli.Command('train fake', 'fake_command', 'a fake of two words'),
    )
    monkeypatch.setattr(cli, 'available', lambda: list(rows))
    return module


def test_help_lists_what_is_there_and_loads_no_torch():
    done = run_python(
        'import sys; from road_anomaly_ros import cli\n'
        'try:\n    cli.main(["--help"])\nexcept SystemExit as end:\n    code = end.code\n'
        'heavy = {"torch", "numpy", "cv2", "transformers"} & set(sys.modules)\n'
        'sys.exit(f"{code} {heavy}" if code or heavy else 0)'
    )
    assert done.returncode == 0, done.stderr
    for row in cli.available():
        assert f'  {row.name} ' in done.stdout
    assert 'road-anomaly COMMAND --help' in done.stdout


@pytest.mark.parametrize('row', cli.available(), ids=lambda row: row.name)
def test_help_of_every_command_loads_no_torch(row):
    done = run_python(
        'import sys; from road_anomaly_ros import cli\n'
        f'try:\n    cli.main({[*row.name.split(), "--help"]!r})\n'
        'except SystemExit as end:\n    assert not end.code\n'
        'sys.exit("torch was imported" if "torch" in sys.modules else 0)'
    )
    assert done.returncode == 0, done.stderr
    assert f'usage: road-anomaly {row.name}' in done.stdout
    assert 'road-anomaly ' + row.name in done.stdout.split('options:')[-1], 'no examples'


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(['--version'])
    assert end.value.code == 0
    assert capsys.readouterr().out == f'road-anomaly {__version__}\n'


def test_every_row_is_one_of_the_documented_words():
    assert {row.name.split()[0] for row in cli.COMMANDS} == {
        'demo',
        'run',
        'replay',
        'record',
        'train',
        'synthesize',
        'evaluate',
        'sweep',
        'calibrate',
        'report',
        'explain',
        'export',
        'bench',
        'benchmark',
        'mine',
        'reproduce',
    }


def test_a_command_without_module_is_not_shown():
    rows = (
        cli.Command('a', 'road_anomaly_ros.cli', ''),
        cli.Command('b', 'road_anomaly_ros.nope', ''),
        cli.Command('c', 'no_such_package.module', ''),
    )
    assert [row.name for row in cli.available(rows)] == ['a']


def test_options_reach_the_command(command):
    command.main = lambda arguments: arguments.size
    assert cli.main(['fake', '--size', '7']) == 7
    assert cli.main(['train', 'fake']) == 1


def test_help_of_a_command_shows_docstring_and_examples(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(['fake', '--help'])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert 'Do something.' in out
    assert '  road-anomaly fake --size 3' in out


def test_help_of_a_group_lists_its_members(command, capsys):
    assert cli.main(['train', '--help']) == 0
    assert 'train fake  a fake of two words' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('words', 'line'),
    [
        (['fkae'], "road-anomaly: unknown command 'fkae'; choose one of ['fake', 'train']\n"),
        (['train'], "road-anomaly: train: expected one of ['fake'] as next word\n"),
        (['train', 'x'], "road-anomaly: train: expected one of ['fake'] as next word, got 'x'\n"),
        (['--loud'], "road-anomaly: unrecognized arguments: --loud; see 'road-anomaly --help'\n"),
        (
            ['fake', '--size', 'x'],
            "road-anomaly: argument --size: invalid int value: 'x'; "
            "see 'road-anomaly fake --help'\n",
        ),
    ],
)
def test_wrong_words_give_one_line_and_exit_code_2(command, capsys, words, line):
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert captured.err == line
    assert captured.out == ''


def test_no_words_print_the_help_and_fail(command, capsys):
    assert cli.main([]) == 2
    assert 'usage: road-anomaly' in capsys.readouterr().out


def raising(error):
    def main(arguments):
        raise error

    return main


def pipeline_error():
    from road_anomaly_ros.perception.contract import PipelineError

    return PipelineError('no weights in models/x; put model.safetensors there')


@pytest.mark.parametrize(
    ('error', 'line'),
    [
        (ValueError('expected 3,\n got 4'), 'expected 3, got 4'),
        (TypeError('tau: expected float, got None'), 'tau: expected float, got None'),
        (FileNotFoundError(2, 'No such file', 'a.mp4'), 'a.mp4: No such file'),
        (OSError('disk is full'), 'disk is full'),
        (ValueError(), 'ValueError'),
    ],
)
def test_errors_of_a_command_are_one_line(command, capsys, error, line):
    command.main = raising(error)
    assert cli.main(['fake']) == 2
    assert capsys.readouterr().err == f'road-anomaly: {line}\n'


def test_a_pipeline_error_is_one_line(command, capsys):
    command.main = raising(pipeline_error())
    assert cli.main(['fake']) == 2
    assert capsys.readouterr().err == (
        'road-anomaly: no weights in models/x; put model.safetensors there\n'
    )


def test_a_warning_of_ours_is_one_line_and_one_of_others_is_left_as_it_is():
    ours, theirs = (
        subprocess.run(
            [
                sys.executable,
                '-W',
                'default',
                '-c',
                'import sys, warnings\n'
                'from road_anomaly_ros import cli\n'
                'from road_anomaly_ros.perception.naming import FormerName\n'
                f'cli._dispatch = lambda *_: warnings.warn("a is called b now", {kind}) or 0\n'
                'cli.main(["run"])',
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        for kind in ('FormerName', 'UserWarning')
    )
    assert ours == 'road-anomaly: warning: a is called b now\n'
    assert theirs.startswith('<string>:') and 'UserWarning: a is called b now' in theirs


def test_a_missing_package_is_named_with_the_remedy(command, capsys):
    command.main = raising(ModuleNotFoundError("No module named 'rclpy'", name='rclpy'))
    assert cli.main(['fake']) == 2
    err = capsys.readouterr().err
    assert "'rclpy'" in err
    assert 'road_anomaly_ros[ros]' in err


@pytest.mark.parametrize(
    'error',
    [
        ZeroDivisionError('defect'),
        ModuleNotFoundError('gone', name='road_anomaly_ros.perception.gone'),
    ],
)
def test_a_defect_of_ours_keeps_its_traceback(command, error):
    command.main = raising(error)
    with pytest.raises(type(error)):
        cli.main(['fake'])


def test_traceback_on_request(command):
    command.main = raising(ValueError('bad'))
    with pytest.raises(ValueError, match='bad'):
        cli.main(['--traceback', 'fake'])


def test_interrupted(command, capsys):
    command.main = raising(KeyboardInterrupt())
    assert cli.main(['fake']) == 130
    assert capsys.readouterr().err == 'road-anomaly: interrupted\n'


# In a process of its own: the tests' may have handlers of rclpy, which end it.
SIGNALLED = """
import signal, sys, types
from road_anomaly_ros import cli
number = int(sys.argv[1])
module = types.ModuleType('fake_command', 'Do something.')
module.EXAMPLES, module.add_arguments = '', lambda parser: None
module.main = lambda arguments: signal.raise_signal(number)
sys.modules['fake_command'] = module
cli.available = lambda: [cli.Command('fake', 'fake_command', 'a fake')]
before = signal.getsignal(number)
code = cli.main(['fake'])
print(code, signal.getsignal(number) == before)
"""


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_signal_that_asks_for_the_end_interrupts(number):
    done = subprocess.run(
        [sys.executable, '-c', SIGNALLED, str(int(number))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split() == [str(128 + number), 'True']
    assert done.stderr == 'road-anomaly: interrupted\n'


def test_a_child_that_is_ended_does_not_end_its_parent(command):
    """A forked worker of a data loader, say: its signals are its own."""
    context = multiprocessing.get_context('fork')
    begun = context.Event()

    def wait():
        begun.set()
        threading.Event().wait()

    def main(arguments):
        child = context.Process(target=wait)
        child.start()
        assert begun.wait(60)
        child.terminate()
        child.join()
        return -child.exitcode

    command.main = main
    assert cli.main(['fake']) == signal.SIGTERM


def test_paths_may_begin_at_home(command, monkeypatch):
    monkeypatch.setenv('HOME', '/home/me')
    seen = []
    command.add_arguments = lambda parser: (
        parser.add_argument('--out', type=Path),
        parser.add_argument('input'),
        parser.add_argument('--sets', type=Path, nargs='+'),
    )
    command.main = lambda arguments: seen.append(vars(arguments)) or 0
    assert cli.main(['fake', '--out=~/r', '--sets', '~/a', 'b', '--', '~/x.mp4']) == 0
    assert seen == [
        {
            'out': Path('/home/me/r'),
            'input': '/home/me/x.mp4',
            'sets': [Path('/home/me/a'), Path('b')],
        }
    ]
