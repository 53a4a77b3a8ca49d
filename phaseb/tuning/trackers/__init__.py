"""Where trials log to beside their records: TensorBoard files, a table, MLflow, Weights & Biases."""
