# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The walls of the house: who may import whom, and the manners of every file."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import ROOT

NAME = 'road_anomaly_ros'
PACKAGE = ROOT / NAME
SOURCES = sorted(PACKAGE.rglob('*.py'))
ALL_PYTHON = sorted(
    [
        *SOURCES,
        *(ROOT / 'test').rglob('*.py'),
        *(ROOT / 'launch').rglob('*.py'),
        *(ROOT / 'docs').glob('*.py'),
        ROOT / 'setup.py',
    ]
)
TEXTS = [
    *ALL_PYTHON,
    *(
        path
        for folder in ('config', 'rviz', '.ci')
        for path in sorted((ROOT / folder).rglob('*'))
        if path.is_file()
    ),
    *(
        ROOT / name
        for name in (
            'README.md',
            'CHANGELOG.rst',
            'Makefile',
            'package.xml',
            'setup.cfg',
            'pyproject.toml',
        )
    ),
    *sorted((ROOT / 'docs').glob('*.md')),
    *sorted((PACKAGE / 'models').rglob('*.md')),
    *sorted((PACKAGE / 'models').rglob('*.json')),
]

ROS = re.compile(
    r'(rclpy|launch|launch_ros|launch_testing|cv_bridge|ament_index_python'
    r'|.*_msgs|.*_srvs)$'
)

# Floors that each floor must never import.
FLOORS = {
    'fleet': {'ros', 'training', 'commands', 'cli'},
    'perception': {
        'rendering',
        'ros',
        'tools',
        'training',
        'evaluation',
        'fleet',
        'commands',
        'cli',
    },
    'rendering': {'ros', 'tools', 'training', 'evaluation', 'fleet', 'commands', 'cli'},
    'tools': {'ros', 'fleet', 'commands', 'cli'},
    'training': {'ros', 'fleet', 'commands', 'cli'},
    'evaluation': {'ros', 'fleet', 'commands', 'cli'},
    'ros': {'training', 'evaluation', 'fleet', 'commands', 'cli'},
    'commands': {'cli'},
}

# Inside perception imports go to a lower number only; rooms of one number stay apart.
ORDER = {
    'contract': 0,
    'registry': 1,
    'naming': 1,
    'parameter_file': 1,
    'stopwatch': 1,
    'resources': 1,
    'arrays': 1,
    'devices': 1,
    'model_files': 1.5,
    'weights': 2,
    'labels': 2,
    'lettering': 2,
    'calibration': 2,
    'drift': 2,
    'windows': 2,
    'kernels': 2,
    'object_options': 2,
    'evidence': 3,
    'sanity': 3,
    'engines': 2.5,
    'vlm': 2.5,
    'segmenters': 3,
    'segments': 3,
    'dense': 3,
    'heads': 4,
    'curve': 4,
    'scorers': 5,
    'refinements': 5,
    'objects': 5,
    'rules': 5,
    'drawing': 5,
    'metrics': 5,
    'tracking': 5,
    'geometry': 5,
    'proposals': 6,
    'config': 6,
    'chain': 6.3,
    'tracks': 6.6,
    'pipeline': 7,
    '__init__': 8,
}


class Import(NamedTuple):
    path: Path
    line: int
    target: str  # dotted name, absolute

    def __str__(self) -> str:
        return f'{self.path.relative_to(ROOT)}:{self.line} imports {self.target}'


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding='utf-8'), str(path))


def imports_of(path: Path, root: Path = ROOT) -> list[Import]:
    """Every import of a file, also those inside functions; `from a import b` counts as `a.b`."""
    found = []
    package = path.relative_to(root).parts[:-1]
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found += [Import(path, node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = '.'.join([*base, *([node.module] if node.module else [])])
            found += [Import(path, node.lineno, f'{module}.{alias.name}') for alias in node.names]
    return found


def room(parts: tuple[str, ...]) -> str:
    """The room of a file or module below perception: its first name, without '.py'."""
    return parts[0].removesuffix('.py') if parts else '__init__'


def upward(path: Path, root: Path) -> list[Import]:
    """Imports inside perception that do not go down."""
    base = root / NAME / 'perception'
    here = room(path.relative_to(base).parts)
    wrong = []
    for entry in imports_of(path, root):
        parts = tuple(entry.target.split('.'))
        if parts[:2] != (NAME, 'perception'):
            continue
        there = parts[2] if len(parts) > 2 and parts[2] in ORDER else '__init__'
        if there != here and ORDER[there] >= ORDER.get(here, 0):
            wrong.append(entry)
    return wrong


def across(path: Path, root: Path) -> list[Import]:
    """Imports that break through the floor of a file."""
    floor = path.relative_to(root / NAME).parts[0]
    banned = FLOORS.get(floor, set())
    wrong = []
    for entry in imports_of(path, root):
        parts = entry.target.split('.')
        if ('ros' in banned and ROS.match(parts[0])) or (
            parts[0] == NAME and len(parts) > 1 and parts[1] in banned
        ):
            wrong.append(entry)
    return wrong


def test_no_import_breaks_through_a_floor():
    wrong = [str(entry) for path in SOURCES for entry in across(path, ROOT)]
    assert not wrong, '\n'.join(wrong)


def test_every_room_of_perception_has_its_place():
    rooms = {
        room(path.relative_to(PACKAGE / 'perception').parts)
        for path in (PACKAGE / 'perception').rglob('*.py')
    }
    assert rooms <= set(ORDER), f'give {sorted(rooms - set(ORDER))} a place in ORDER'


def test_imports_inside_perception_go_down():
    wrong = [
        str(entry)
        for path in (PACKAGE / 'perception').rglob('*.py')
        for entry in upward(path, ROOT)
    ]
    assert not wrong, '\n'.join(wrong)


def module_of(path: Path, root: Path = ROOT) -> str:
    parts = path.relative_to(root).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def graph(paths: list[Path], root: Path) -> dict[str, set[str]]:
    """The modules of a package that each of them imports, at the top or in a function."""
    modules = {module_of(path, root) for path in paths}
    found: dict[str, set[str]] = {}
    for path in paths:
        targets = {entry.target for entry in imports_of(path, root)}
        targets |= {target.rpartition('.')[0] for target in targets - modules}
        found[module_of(path, root)] = targets & modules - {module_of(path, root)}
    return found


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other, and so can only be understood together."""
    reach = {name: set(targets) for name, targets in imports.items()}
    for middle in reach:
        for targets in reach.values():
            if middle in targets:
                targets |= reach[middle]
    groups = {
        tuple(sorted(other for other in reach[name] if name in reach[other]))
        for name in reach
        if name in reach[name]
    }
    return sorted(map(list, groups))


def test_no_circle_of_imports():
    found = circles(graph(SOURCES, ROOT))
    assert not found, '\n'.join(' <-> '.join(group) for group in found)


def test_circles_are_seen_also_through_functions_and_packages(tmp_path):
    package = tmp_path / NAME
    package.mkdir()
    for name, text in (
        ('__init__', ''),
        ('a', 'from . import b'),
        ('b', f'def f():\n    from {NAME}.c import g'),
        ('c', f'import {NAME}.a'),
        ('d', f'from {NAME} import a\nfrom {NAME} import VERSION'),
    ):
        (package / f'{name}.py').write_text(text)
    found = circles(graph(sorted(package.glob('*.py')), tmp_path))
    assert found == [[f'{NAME}.{name}' for name in 'abc']]


# Commands that are still one with their work, in rooms of their own.
MIXED = {'cli.py', 'tools/chain.py'}
MIXED |= {'ros/replay.py', 'ros/record.py', 'ros/bench_node.py', 'ros/tables.py'}
MIXED |= {f'fleet/{name}.py' for name in ('mine', 'mine_export', 'mine_report', 'choosing')}


def reads_words(path: Path) -> list[str]:
    """Where a file takes or makes a parsed command line."""
    return [
        f'{path.relative_to(ROOT)}:{node.lineno} reads a command line'
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Attribute)
        and node.attr in ('Namespace', 'ArgumentParser')
        and ast.unparse(node.value) == 'argparse'
    ]


def test_only_commands_read_the_command_line():
    wrong = [
        line
        for path in SOURCES
        if path.parent.name != 'commands' and path.relative_to(PACKAGE).as_posix() not in MIXED
        for line in reads_words(path)
    ]
    assert not wrong, '\n'.join(wrong)
    assert reads_words(PACKAGE / 'commands' / 'calibrate.py')


def test_a_command_offers_its_words_and_nothing_else():
    wrong = [
        f'{path.name}: {node.name}'
        for path in (PACKAGE / 'commands').glob('*.py')
        for node in parse(path).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        and not node.name.startswith(('_', 'add_'))
        and not (node.name == 'main' or node.name.endswith('_of'))
    ]
    assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize(
    ('pattern', 'home'),
    [
        (r'join\(str\(\w+\)\.split\(\)\)', 'remarks.py'),
        (r'hashlib\.sha256\(', 'files.py'),
        (r"\.partial'\)", 'files.py'),
    ],
)
def test_files_and_words_have_one_place(pattern, home):
    places = {path.name for path in SOURCES if re.search(pattern, path.read_text('utf-8'))}
    assert places == {home}


def test_registry_needs_the_standard_library_only():
    outside = [
        str(entry)
        for entry in imports_of(PACKAGE / 'perception' / 'registry.py')
        if entry.target.partition('.')[0] in ('torch', 'numpy', 'cv2', 'yaml')
    ]
    assert not outside


@pytest.mark.parametrize(
    ('file', 'line', 'check'),
    [
        ('perception/scorers.py', 'from sensor_msgs.msg import Image', across),
        ('perception/scorers.py', 'import rclpy.node', across),
        ('perception/scorers.py', 'from ..ros import images', across),
        ('perception/scorers.py', 'from road_anomaly_ros import tools', across),
        ('training/head.py', 'from road_anomaly_ros.ros.node import main', across),
        ('perception/scorers.py', 'from .pipeline import Pipeline', upward),
        ('perception/scorers.py', 'from road_anomaly_ros.perception import refinements', upward),
        ('perception/segmenters/a.py', 'def f():\n    from ..segments import b', upward),
    ],
)
def test_the_checks_see_a_breach(tmp_path, file, line, check):
    path = tmp_path / NAME / file
    path.parent.mkdir(parents=True)
    path.write_text(line + '\n')
    assert check(path, tmp_path)


@pytest.mark.parametrize('path', ALL_PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_manners(path):
    lines = path.read_text(encoding='utf-8').splitlines()
    assert lines[:2] == [
        '# Copyright 2026 The road_anomaly_ros authors',
        '# SPDX-License-Identifier: Apache-2.0',
    ], 'no header'
    assert len(lines) <= 500, f'{len(lines)} lines; split the file'
    complaints = [text for node in ast.walk(parse(path)) for text in complain(node, path)]
    assert not complaints, '\n'.join(complaints)


RUNS_CODE = {
    'eval',
    'exec',
    'os.system',
    'pickle.load',
    'pickle.loads',
    'torch.hub.load',
    'yaml.load',
    'yaml.full_load',
    'yaml.unsafe_load',
    'joblib.load',
}
NETWORK = {'socket', 'urllib.request', 'http.client', 'requests', 'httpx', 'aiohttp', 'ftplib'}


def complain(node: ast.AST, path: Path) -> list[str]:
    """What the house does not want in this node of the syntax tree."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        return [f'{node.name}: {length} lines, at most 60'] if length > 60 else []
    if isinstance(node, ast.ImportFrom) and any(alias.name == '*' for alias in node.names):
        return [f'line {node.lineno}: star import']
    if isinstance(node, ast.Assert) and PACKAGE in path.parents:
        return [f'line {node.lineno}: assert is no input validation']
    if isinstance(node, ast.Call) and ast.unparse(node.func) == 'torch.load':
        safe = any(
            word.arg == 'weights_only' and ast.unparse(word.value) == 'True'
            for word in node.keywords
        )
        return [] if safe else [f'line {node.lineno}: torch.load without weights_only=True']
    return unsafe(node) if PACKAGE in path.parents else []


def unsafe(node: ast.AST) -> list[str]:
    """Code out of data, and the network: the hub's client alone asks, for a model of that name."""
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        risky = [
            word.arg
            for word in node.keywords
            if word.arg in ('allow_pickle', 'shell') and ast.unparse(word.value) == 'True'
        ]
        found = [name] if name in RUNS_CODE else risky
        return [f'line {node.lineno}: {word} may run code of a file' for word in found]
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom):
        names = [f'{node.module}.{alias.name}' for alias in node.names] + [str(node.module)]
    return [
        f'line {node.lineno}: {name} reaches into the network'
        for name in names
        if name in NETWORK or name.partition('.')[0] in NETWORK
    ]


@pytest.mark.parametrize(
    'line',
    [
        'from torch import *',
        'torch.load(path)',
        'torch.load(path, weights_only=False)',
        'def f():\n' + '    x = 1\n' * 60,
    ],
)
def test_manners_see_a_breach(line):
    assert any(complain(node, ROOT / 'setup.py') for node in ast.walk(ast.parse(line)))


@pytest.mark.parametrize(
    'line',
    [
        'pickle.load(file)',
        'yaml.load(text)',
        'np.load(path, allow_pickle=True)',
        'eval(text)',
        'subprocess.run(words, shell=True)',
        'import requests',
        'from urllib.request import urlopen',
        'from urllib import request',
        'import http.client',
        'import socket as s',
    ],
)
def test_what_may_run_code_or_reach_into_the_network_is_seen(line):
    path = PACKAGE / 'tools' / 'a.py'
    assert any(complain(node, path) for node in ast.walk(ast.parse(line)))


def loosely_typed(tree: ast.AST, name: str = '', public: bool = True) -> list[str]:
    """The public functions with `Any` in their signature, each as often as it stands there."""
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            found += loosely_typed(node, f'{node.name}.', public and node.name[0] != '_')
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            given = [part.annotation for part in ast.walk(node.args) if isinstance(part, ast.arg)]
            words = [
                word
                for part in (*given, node.returns)
                for word in ast.walk(part or ast.Pass())
                if isinstance(word, ast.Name) and word.id == 'Any'
            ]
            hidden = not public or (node.name[0] == '_' and not node.name.endswith('__'))
            found += [] if hidden else [name + node.name] * len(words)
    return found


def test_public_signatures_of_perception_say_what_they_take():
    found = [
        f'{path.relative_to(PACKAGE)}: {name}'
        for path in sorted((PACKAGE / 'perception').rglob('*.py'))
        if path.name[0] != '_' or path.name == '__init__.py'
        for name in loosely_typed(parse(path))
    ]
    assert len(found) <= 15, '\n'.join(found)
    assert loosely_typed(ast.parse('def f(a: Any, *b: list[Any]) -> None: ...')) == ['f', 'f']
    assert not loosely_typed(ast.parse('def _f(a: Any) -> None: ...'))


def test_no_machine_path_and_no_unfinished_mark():
    folders = '|'.join(['work', 'root', 'farm'])
    path_of_a_machine = re.compile(rf'(^|[^A-Za-z0-9_.])/({folders})/')
    unfinished = re.compile(r'\b(' + '|'.join(['TO' + 'DO', 'FIX' + 'ME', 'X' * 3]) + r')\b')
    wrong = [
        f'{path.relative_to(ROOT)}:{number}: {line.strip()}'
        for path in TEXTS
        for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1)
        if path_of_a_machine.search(line) or unfinished.search(line)
    ]
    assert not wrong, '\n'.join(wrong)
    assert path_of_a_machine.search('open("/' + 'work/x")')
