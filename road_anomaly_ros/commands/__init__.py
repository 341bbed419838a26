# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a person types: each command reads its words, calls the work and prints what came."""
