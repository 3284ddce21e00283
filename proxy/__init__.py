"""The process side of the data plane: configuration, supervisor, workers, what operators see."""
