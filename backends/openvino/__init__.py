"""OpenVINO on CPU and GPU."""
