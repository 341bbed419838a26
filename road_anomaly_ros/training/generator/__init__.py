# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
