# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What computes a network: torch, or an exported graph beside the weights in another runtime."""

ENGINES = ('auto', 'torch', 'onnxruntime', 'openvino')
GRAPH = 'model.onnx'
METADATA = 'road_anomaly.'
INPUTS = ('pixels', 'places0', 'places1', 'places2', 'scale', 'reference')
OUTPUTS = ('class_logits', 'mask_logits', 'mask_features')
