"""Reading and writing ONNX models: `read`, `check`, `infer`, `write`, `inline_call`, `schema_function`."""
