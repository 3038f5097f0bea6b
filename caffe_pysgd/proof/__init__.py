"""Is it right? Against stock Caffe, against a record, against somebody's own program."""
