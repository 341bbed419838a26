# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What computes a network: torch, or an exported graph beside the weights in another runtime."""

ENGINES = ('auto', 'torch', 'onnxruntime', 'openvino', 'tensorrt')
ENGINE_TEXT = (
    "What computes the network: 'torch', or the model.onnx beside the weights through "
    "'onnxruntime' or 'openvino' (bfloat16 where the CPU has it) on the CPU, through 'tensorrt' "
    "on a GPU; 'auto' is the fastest that can be had on the CPU."
)
GRAPH = 'model.onnx'
METADATA = 'road_anomaly.'
INPUTS = ('pixels', 'places0', 'places1', 'places2', 'scale', 'reference')
OUTPUTS = ('class_logits', 'mask_logits', 'mask_features')
