# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Archives of driving: thousands of files, many processes or machines, one index.

`listing` finds the files, `mining` takes one of them through the chain, `driving` hands tasks to
workers and takes back what they found, `cluster` has workers on Ray, `index` keeps the results.
"""
