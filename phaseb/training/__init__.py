"""The one way a torch module is trained: in this process, or on Ray Train with any number of workers."""
