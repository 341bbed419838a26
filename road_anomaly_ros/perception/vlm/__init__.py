# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What does not belong there, in a vision-language model's words: points, names, masks, a score.

`answers` asks and reads, `model` runs a local model of transformers, `beside` lets it think
without holding up a frame, `points` turns what it said into a score (query-level uncertainty,
section IV-F and appendix).
"""
