# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The package as others get it: what colcon installs, what wheel and sdist hold, one version."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import ROOT

import road_anomaly_ros

NAME = 'road_anomaly_ros'
LEFT_OUT = (
    '.*',
    '__pycache__',
    '*.egg-info',
    'test',
    'build',
    'install',
    'log',
    'dist',
    'runs',
    'demo_out',
    'shared',
)
DEPENDENCIES = ElementTree.parse(ROOT / 'package.xml').getroot()


def files_of(folder: str, root: Path = ROOT) -> set[str]:
    """Every file below a folder, relative to `root`, caches left out."""
    return {
        str(path.relative_to(root))
        for path in (root / folder).rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }


def call(command: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, **variables}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f'{command}\n{done.stdout}\n{done.stderr}'
    return done


@pytest.fixture(scope='module')
def source(tmp_path_factory) -> Path:
    """A copy of the package without environments and caches."""
    target = tmp_path_factory.mktemp('workspace') / 'src' / NAME
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
    return target


@pytest.fixture(scope='module')
def installed(source) -> Path:
    """The prefix that `colcon build` fills."""
    for module in ('colcon_core', 'colcon_ros'):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f'{module} is not installed; it comes with the extra dev')
    colcon = 'import sys; from colcon_core.command import main; sys.exit(main())'
    call(
        [
            sys.executable,
            '-c',
            colcon,
            '--log-base',
            'log',
            'build',
            '--base-paths',
            'src',
            '--packages-select',
            NAME,
        ],
        source.parent.parent,
        AMENT_PREFIX_PATH='',
    )
    return source.parent.parent / 'install' / NAME


@pytest.fixture(scope='module')
def archives(source) -> tuple[set[str], set[str]]:
    """The names inside a wheel and inside a source archive, the latter without its top folder."""
    call([sys.executable, 'setup.py', '-q', 'bdist_wheel', 'sdist'], source)
    (wheel,) = (source / 'dist').glob('*.whl')
    (sdist,) = (source / 'dist').glob('*.tar.gz')
    with zipfile.ZipFile(wheel) as opened:
        in_wheel = set(opened.namelist())
    with tarfile.open(sdist) as opened:
        in_sdist = {name.partition('/')[2] for name in opened.getnames()}
    return in_wheel, in_sdist


def test_colcon_installs_the_marker_and_the_shared_files(installed):
    share = installed / 'share'
    assert (share / 'ament_index/resource_index/packages' / NAME).is_file()
    for name in ('package.xml', 'LICENSE'):
        assert (share / NAME / name).read_bytes() == (ROOT / name).read_bytes()
    for folder in ('launch', 'config', 'rviz'):
        assert files_of(folder) <= files_of('.', share / NAME), folder


def test_colcon_installs_every_module_and_every_model_file(installed):
    (package,) = installed.glob(f'lib/python*/site-packages/{NAME}')
    assert files_of(NAME) <= files_of(NAME, package.parent)


def test_colcon_installs_the_scripts_and_they_start(installed):
    scripts = installed / 'lib' / NAME
    assert {path.name for path in scripts.iterdir()} == {name for name, _ in entry_points()}
    (packages,) = installed.glob('lib/python*/site-packages')
    done = call(
        [sys.executable, str(scripts / 'road-anomaly'), '--version'],
        installed,
        PYTHONPATH=str(packages),
    )
    assert done.stdout == f'road-anomaly {road_anomaly_ros.__version__}\n'


def test_ament_finds_the_installed_package(installed):
    index = pytest.importorskip('ament_index_python', reason='needs the extra ros')
    os_path = {'AMENT_PREFIX_PATH': str(installed)}
    code = (
        f'from {index.__name__}.packages import get_package_share_directory as share\n'
        f'print(share({NAME!r}))'
    )
    assert call([sys.executable, '-c', code], installed, **os_path).stdout.strip() == str(
        installed / 'share' / NAME
    )


def test_wheel_and_sdist_hold_models_and_shared_files(archives):
    wheel, sdist = archives
    assert files_of(NAME) <= wheel
    assert files_of(NAME) <= sdist
    for folder in ('launch', 'config', 'rviz', 'resource'):
        assert files_of(folder) <= sdist, folder
    assert {'setup.py', 'setup.cfg', 'package.xml', 'README.md', 'LICENSE'} <= sdist
    data = f'{NAME}-{road_anomaly_ros.__version__}.data/data/share/{NAME}'
    assert {f'{data}/package.xml', f'{data}/LICENSE'} <= wheel
    assert {f'{data}/{name}' for name in files_of('config') | files_of('launch')} <= wheel


def test_wheel_holds_no_other_package(archives):
    wheel, _ = archives
    assert {name.partition('/')[0].partition('-')[0] for name in wheel} == {NAME}


def entry_points() -> list[tuple[str, str]]:
    """The console scripts as the installed metadata of setup.py would list them."""
    text = (ROOT / 'setup.py').read_text(encoding='utf-8')
    return re.findall(r"'([\w-]+) = ([\w.]+:\w+)'", text)


@pytest.mark.parametrize(('name', 'target'), entry_points())
def test_entry_points_lead_somewhere(name, target):
    module, _, function = target.partition(':')
    if '.ros.' in module:
        pytest.importorskip('rclpy', reason='needs the extra ros')
    assert callable(getattr(importlib.import_module(module), function))


def test_one_version():
    changelog = (ROOT / 'CHANGELOG.rst').read_text(encoding='utf-8')
    newest = re.search(r'^(\d+\.\d+\.\d+) \(', changelog, re.MULTILINE)
    setup = subprocess.run(
        [sys.executable, 'setup.py', '--version'],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
        timeout=60,
    )
    versions = {DEPENDENCIES.findtext('version'), setup.stdout.split()[-1], newest and newest[1]}
    assert versions == {road_anomaly_ros.__version__}


def test_package_xml_keeps_the_rules_of_rep_149():
    assert DEPENDENCIES.tag == 'package'
    assert DEPENDENCIES.get('format') == '3'
    assert DEPENDENCIES.findtext('name') == NAME
    assert DEPENDENCIES.findtext('license') == 'Apache-2.0'
    assert DEPENDENCIES.find('license').get('file') == 'LICENSE'
    assert DEPENDENCIES.find('url').get('type') == 'website'
    assert re.fullmatch(r'\S+@\S+', DEPENDENCIES.find('maintainer').get('email'))
    assert len(DEPENDENCIES.findtext('description').strip()) > 20
    assert DEPENDENCIES.findtext('export/build_type') == 'ament_python'
    assert not DEPENDENCIES.findall('buildtool_depend'), 'ament_python is no rosdep key'
    for kind in ('exec_depend', 'test_depend'):
        keys = [node.text for node in DEPENDENCIES.findall(kind)]
        assert len(keys) == len(set(keys))
        assert all(re.fullmatch(r'[a-z0-9_-]+', key) for key in keys)


def test_package_xml_is_accepted_by_catkin_pkg():
    package = pytest.importorskip('catkin_pkg.package', reason='comes with colcon-ros')
    warnings: list[str] = []
    package.parse_package(str(ROOT / 'package.xml'), warnings=warnings)
    assert not warnings


def test_what_has_a_rosdep_key_is_asked_for_by_it_and_the_rest_is_in_the_readme():
    keys = {node.text for node in DEPENDENCIES.findall('exec_depend')}
    with_key = {
        'torch': 'python3-torch',
        'torchvision': 'python3-torchvision',
        'transformers': 'python3-transformers-pip',
        'rosbags': 'python3-rosbags-pip',
        'numba': 'python3-numba',
        'numpy': 'python3-numpy',
        'scipy': 'python3-scipy',
        'opencv-python-headless': 'python3-opencv',
        'pillow': 'python3-pil',
        'PyYAML': 'python3-yaml',
        'scikit-image': 'python3-skimage',
        'tqdm': 'python3-tqdm',
    }
    assert set(with_key.values()) <= keys
    text = (ROOT / 'setup.py').read_text(encoding='utf-8')
    required = re.search(r'REQUIRED = \[(.*?)\n\]', text, re.DOTALL)[1]
    names = set(re.findall(r"'([\w-]+)[>=]", required))
    by_hand = re.search(
        r'^pip install ([\w -]*segment-anything[\w -]*)$',
        (ROOT / 'README.md').read_text(encoding='utf-8'),
        re.MULTILINE,
    )[1].split()
    assert names - set(with_key) == set(by_hand)


def test_package_xml_names_every_ros_package_that_is_imported():
    keys = {node.text for node in DEPENDENCIES if node.tag.endswith('depend')}
    wanted = set()
    for path in [*(ROOT / NAME).rglob('*.py'), *(ROOT / 'launch').rglob('*.py')]:
        source = path.read_text(encoding='utf-8')
        wanted |= set(
            re.findall(
                r'^\s*(?:from|import) (rclpy|launch\w*|cv_bridge|lifecycle_msgs|'
                r'ament_index_python|\w+_(?:msgs|srvs|interfaces))\b',
                source,
                re.MULTILINE,
            )
        )
    assert wanted <= keys


PUBLIC = sorted(
    '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
    for path in (ROOT / NAME).rglob('*.py')
    if '__all__' in path.read_text(encoding='utf-8')
)


@pytest.mark.parametrize('module', PUBLIC)
def test_all_names_what_exists(module):
    if f'{NAME}.ros' in module:
        pytest.importorskip('rclpy', reason='needs the extra ros')
    loaded = importlib.import_module(module)
    missing = [name for name in loaded.__all__ if not hasattr(loaded, name)]
    assert not missing
    assert len(loaded.__all__) == len(set(loaded.__all__))


@pytest.mark.skipif(shutil.which('make') is None, reason='make is not installed')
@pytest.mark.parametrize(
    ('words', 'code', 'says'),
    [
        (['ROS=kilted'], 0, 'pytest -n'),
        (['ROS=noetic'], 2, 'expected ROS=kilted or ROS=jazzy'),
        (['ROS=jazzy', 'PYTHON312=python3'], 0, '-n 2 --dist loadfile test/ros;'),
        (['PYTHON312=python3'], 0, '-n 2 --dist loadfile test/ros/test_process.py '),
        (['PYTHON312='], 0, 'need Python 3.12, none is installed'),
        (['ROS=jazzy', 'PYTHON312='], 0, 'need Python 3.12, none is installed'),
    ],
)
def test_make_test_knows_the_distributions_with_public_wheels(words, code, says):
    done = subprocess.run(
        ['make', '-n', 'test', *words], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code
    assert says in done.stdout + done.stderr


PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


def test_the_readme_stays_short():
    assert len((ROOT / 'README.md').read_text(encoding='utf-8').splitlines()) <= 150


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_of_the_pages_lead_somewhere(page):
    found = re.findall(r'\]\(([^)#]+)(?:#[^)]*)?\)', page.read_text(encoding='utf-8'))
    missing = [link for link in found if '://' not in link and not (page.parent / link).exists()]
    assert not missing


def test_the_index_names_every_page():
    index = (ROOT / 'docs' / 'README.md').read_text(encoding='utf-8')
    assert all(f']({page.name})' in index for page in PAGES if page.name != 'README.md')


def test_pictures_are_small_and_shown():
    shown = ''.join(page.read_text(encoding='utf-8') for page in PAGES)
    for path in (ROOT / 'docs').glob('*.jpg'):
        assert path.stat().st_size <= 250_000, path.name
        assert f'{path.name})' in shown, f'{path.name} is on no page'


def test_figures_of_the_readme_stand_on_the_pages_that_it_names():
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    rows = re.findall(r'^\|[^|]*\| ([^|]*) \| .*\]\((docs/\w+\.md)\) \|$', text, re.MULTILINE)
    assert len(rows) >= 6
    for cell, page in rows:
        told = (ROOT / page).read_text(encoding='utf-8')
        for figure in re.findall(r'\d+(?:\.\d+)?', cell):
            assert re.search(rf'(?<![\d.]){re.escape(figure)}(?![\d.]*\d)', told), (figure, page)


@pytest.mark.parametrize(
    ('set_before', 'spins'),
    [({}, '10000'), ({'GOMP_SPINCOUNT': '7'}, '7'), ({'OMP_WAIT_POLICY': 'active'}, 'None')],
)
def test_threads_of_openmp_do_not_turn_for_long_unless_asked_to(set_before, spins):
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY')
    }
    done = subprocess.run(
        [sys.executable, '-c', f'import os, {NAME}; print(os.environ.get("GOMP_SPINCOUNT"))'],
        capture_output=True,
        text=True,
        check=True,
        env={**clean, **set_before},
    )
    assert done.stdout.strip() == spins
