"""Captions of COCO and Flickr30k."""
