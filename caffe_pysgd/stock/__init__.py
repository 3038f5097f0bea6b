"""Stock Caffe: its module, its processes, the files that it reads and writes."""
