# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Road anomaly segmentation for ROS 2: obstacles that belong to no known class, seen by camera."""

import os

__version__ = '0.1.0'

if 'OMP_WAIT_POLICY' not in os.environ:
    # GNU OpenMP, on which torch runs, lets its threads turn for some 5 ms after each piece of work
    # in case there is more, and the threads that score an image meanwhile wait for a processor.
    # Turning for 0.2 ms serves the network as well. OpenMP reads this once, when torch is loaded.
    os.environ.setdefault('GOMP_SPINCOUNT', '10000')
