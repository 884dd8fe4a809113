"""ONNX graphs: parsed without running them, and run through onnxruntime."""
