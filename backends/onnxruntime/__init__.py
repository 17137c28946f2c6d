"""ONNX Runtime on CPU, CUDA and TensorRT."""
