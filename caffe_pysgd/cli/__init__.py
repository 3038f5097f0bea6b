"""The command ``caffe-pysgd``: one module per subcommand."""
